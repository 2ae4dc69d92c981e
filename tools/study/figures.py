"""Draw the studies: every seed's accuracy, and the differences that are tested, with their intervals.

    python -m tools.study.figures                       # all studies that have numbers
    python -m tools.study.figures --study intervals

Writes OUTPUT/small_study_<name>.png and beside it a .json with the numbers, and the runs and commits they
come from. The numbers are those of results/small_study_<name>.csv, from tools.collect.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.collect import RESULTS
from tools.command_line import tool_parser
from tools.drawing import FIGURES, GREY, color, new_figure, seed_counts
from tools.paper.grid import SCALES, STUDIES, Cell
from tools.records import write_figure
from tools.study.paired import CONFIDENCE
from tools.study.study import SCALE, Comparison, Study, label, read_study
from tools.tables.compare import SHOWN

_ROW_IN = 0.3  # height of a line
_AROUND_IN = 1.5  # height of axes' labels and the caption


def draw_study(study: Study) -> Figure:
    """Draw a study: on the left a line per cell, on the right a line per comparison."""
    rows = max(len(study.grid.cells), len(study.comparisons))
    figure = new_figure(9.6, _AROUND_IN + _ROW_IN * rows)
    accuracies, differences = figure.subplots(1, 2, width_ratios=(1, 1))
    _draw_accuracies(accuracies, study)
    _draw_differences(differences, study)
    counts = [len(values) for values in study.values.values() if values]
    lost = sum(map(len, study.diverged.values()))
    text = (
        f"Scale {SCALE}: {SCALES[SCALE]}. {study.grid.scales[SCALE].dataset}; "
        f"{seed_counts(counts, lost)}.\n"
        f"Left: each seed, mean and standard deviation. Right: mean and {CONFIDENCE:.0%} interval of the "
        "differences seed by seed."
    )
    figure.supxlabel(text, fontsize=7, color=GREY)
    return figure


def record_of(study: Study) -> dict[str, Any]:
    """Return what a figure shows, as plain values in percent and percentage points, with the runs."""
    return {
        "study": study.name,
        "scale": SCALE,
        "dataset": study.grid.scales[SCALE].dataset,
        "cells": [
            {
                "label": label(cell, study.grid),
                "top1_by_seed": study.values[cell.name],
                "diverged_seeds": sorted(study.diverged[cell.name]),
            }
            for cell in study.grid.cells
        ],
        "comparisons": [
            {
                "first": one.first.label,
                "second": one.second.label,
                **(asdict(one.paired) if one.paired else {}),
                "p_holm": one.p_holm,
                "first_is": one.verdict,
            }
            for one in study.comparisons
        ],
        "runs": [asdict(one) for one in study.measurements],
    }


def _draw_accuracies(panel: Axes, study: Study) -> None:
    for line, cell in enumerate(study.grid.cells):
        values = list(study.values[cell.name].values())
        if not values:
            _say(panel, line, "diverged" if study.diverged[cell.name] else "missing")
            continue
        mean = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        panel.plot(values, [line] * len(values), "o", color=color(0), alpha=0.4, markersize=4, linewidth=0)
        panel.errorbar(
            mean, line, xerr=spread, fmt="|", color=color(1), markersize=12, linewidth=1.4, capsize=2
        )
    _finish(panel, [_name(study, cell) for cell in study.grid.cells], SHOWN["top1"])


def _draw_differences(panel: Axes, study: Study) -> None:
    panel.axvline(0, color=GREY, linewidth=0.9, linestyle="--")
    for line, one in enumerate(study.comparisons):
        paired = one.paired
        if paired is None:
            _say(panel, line, one.verdict)
            continue
        panel.plot(paired.mean, line, "s", color=color(1), markersize=5)
        if paired.low is not None and paired.high is not None:
            panel.plot([paired.low, paired.high], [line, line], color=color(1), linewidth=1.4)
    names = [_words(one) for one in study.comparisons]
    _finish(panel, names, "difference in percentage points")


def _say(panel: Axes, line: int, words: str) -> None:
    panel.text(0.5, line, words, transform=panel.get_yaxis_transform(), va="center", fontsize=7)


def _name(study: Study, cell: Cell) -> str:
    """Return a cell's name, with how many of its runs left no point."""
    lost = len(study.diverged[cell.name])
    return label(cell, study.grid) + (f" ({lost} diverged)" if lost else "")


def _words(one: Comparison) -> str:
    """Return a comparison's name, with why nothing follows from what is drawn of it."""
    drawn_alone = one.paired is not None and one.p is None
    return f"{one.first.label}\n− {one.second.label}" + (f"\n({one.verdict})" if drawn_alone else "")


def _finish(panel: Axes, names: Sequence[str], unit: str) -> None:
    """Name the lines, the first on top, and make the panel quiet."""
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlabel(unit, fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line names."""
    parser = tool_parser("study_figures", __doc__)
    parser.add_argument(
        "--study", choices=STUDIES, metavar="NAME", help="all that have numbers, unless given"
    )
    parser.add_argument("--output", type=Path, default=FIGURES, help=f"folder of the pictures ({FIGURES})")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the CSVs ({RESULTS})")
    arguments = parser.parse_args(argv)
    try:
        names = [arguments.study] if arguments.study else STUDIES
        studies = [read_study(name, arguments.results) for name in names]
        if not any(study.measurements for study in studies):
            raise ValueError(
                f"{arguments.results} has no numbers of {', '.join(names)}; run tools.sweep --study NAME, "
                "then tools.collect"
            )
    except ValueError as error:
        parser.error(str(error))
    for study in studies:
        if study.measurements:
            picture = arguments.output / f"{SCALE}_study_{study.name}.png"
            write_figure(picture, draw_study(study), record_of(study), indent=1)


if __name__ == "__main__":
    main()

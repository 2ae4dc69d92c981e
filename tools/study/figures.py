"""Draw the studies: every seed's accuracy, and the differences to the reference in all metrics.

    python -m tools.study.figures                       # all studies that have numbers
    python -m tools.study.figures --study starts

Writes OUTPUT/small_study_<name>.png and beside it a .json with the numbers, which are those of
results/tables/small_study_<name>.csv, from tools.collect.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.processes.program import errors_told_by, to_path
from tools.drawing import GREY, color, new_figure
from tools.paper.grid import SCALES, STUDIES, Cell
from tools.records import tool_parser, write_figure
from tools.study.study import CONFIDENCE, SCALE, StudyNumbers, read_study
from tools.tables.measurements import DIVERGED, RESULTS, SHOWN, seed_counts

_ROW_IN = 0.3  # height of a line
_AROUND_IN = 1.4  # height of axes' labels and the caption


def draw_study(numbers: StudyNumbers) -> Figure:
    """Draw a line per cell: on the left each seed's first metric, then every metric's differences."""
    names = [numbers.label(cell) for cell in numbers.study.cells]
    figure = new_figure(3.2 + 3.2 * (1 + len(numbers.values)), _AROUND_IN + _ROW_IN * len(names))
    first, *others = figure.subplots(1, 1 + len(numbers.values), sharey=True)
    metrics = list(numbers.values)
    _draw_values(first, numbers, metrics[0])
    for panel, metric in zip(others, metrics, strict=True):
        _draw_differences(panel, numbers, metric)
    first.set_yticks(range(len(names)), names, fontsize=7)
    first.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    counts = [len(values) for values in numbers.values[metrics[0]].values() if values]
    lost = sum(map(len, numbers.diverged.values()))
    dataset = numbers.study.scales[SCALE].dataset
    text = (
        f"Scale {SCALE}: {SCALES[SCALE]}. {dataset}; {seed_counts(counts, lost)}.\n"
        f"Left: each seed, mean and standard deviation. Then: mean and {CONFIDENCE:.0%} interval of the "
        "differences seed by seed."
    )
    figure.supxlabel(text, fontsize=7, color=GREY)
    return figure


def _draw_values(panel: Axes, numbers: StudyNumbers, metric: str) -> None:
    for line, cell in enumerate(numbers.study.cells):
        values = list(numbers.values[metric][cell.name].values())
        lost = len(numbers.diverged[cell.name])
        if not values:
            words = f"{lost} {DIVERGED}" if lost else "missing"
            panel.text(0.5, line, words, transform=panel.get_yaxis_transform(), va="center", fontsize=7)
            continue
        mean = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        panel.plot(values, [line] * len(values), "o", color=color(0), alpha=0.4, markersize=4, linewidth=0)
        bar: dict[str, Any] = {"fmt": "|", "markersize": 12, "linewidth": 1.4, "capsize": 2}
        panel.errorbar(mean, line, xerr=spread, color=color(1), **bar)
    _finish(panel, SHOWN[metric])


def _draw_differences(panel: Axes, numbers: StudyNumbers, metric: str) -> None:
    panel.axvline(0, color=GREY, linewidth=0.9, linestyle="--")
    for line, cell in enumerate(numbers.study.cells):
        found = numbers.to_reference(metric, cell)
        if found is not None:
            panel.plot(found.mean, line, "s", color=color(1), markersize=5)
            if found.low is not None and found.high is not None:
                panel.plot([found.low, found.high], [line, line], color=color(1), linewidth=1.4)
    _finish(panel, f"{SHOWN[metric]},\nminus {numbers.compared_with}")


def _finish(panel: Axes, unit: str) -> None:
    panel.set_xlabel(unit, fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)


def record_of(numbers: StudyNumbers) -> dict[str, Any]:
    """Return what a figure shows, as plain values, accuracies in percent."""
    return {
        "study": numbers.study.key,
        "scale": SCALE,
        "dataset": numbers.study.scales[SCALE].dataset,
        "differences_to": numbers.compared_with,
        "cells": [
            {
                "label": numbers.label(cell),
                **{f"{metric}_by_seed": cells[cell.name] for metric, cells in numbers.values.items()},
                "diverged_seeds": numbers.diverged[cell.name],
                **{f"{metric}_difference": _difference(numbers, metric, cell) for metric in numbers.values},
            }
            for cell in numbers.study.cells
        ],
    }


def _difference(numbers: StudyNumbers, metric: str, cell: Cell) -> dict[str, Any] | None:
    found = numbers.to_reference(metric, cell)
    return asdict(found) if found else None


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line names."""
    parser = tool_parser("study.figures", __doc__)
    parser.add_argument(
        "--study", choices=STUDIES, metavar="NAME", help="all that have numbers, unless given"
    )
    parser.add_argument(
        "--output", type=to_path, help="folder of the pictures (that of the results, figures/)"
    )
    parser.add_argument("--results", type=to_path, default=RESULTS, help=f"folder of the CSVs ({RESULTS})")
    arguments = parser.parse_args(argv)
    names = [arguments.study] if arguments.study else STUDIES
    with errors_told_by(parser):
        studies = [found for name in names if (found := read_study(name, arguments.results)).measurements]
        if not studies:
            raise ValueError(
                f"{arguments.results} has no numbers of {', '.join(names)}; run tools.sweep --study NAME, "
                "then tools.collect"
            )
        for numbers in studies:
            output = arguments.output or arguments.results / "figures"
            picture = output / f"{SCALE}_study_{numbers.study.key}.png"
            write_figure(picture, draw_study(numbers), record_of(numbers), indent=1)


if __name__ == "__main__":
    main()

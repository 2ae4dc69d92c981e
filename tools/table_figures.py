"""Draw Tables 2, 3, 5, 6 and 7 as figures: the paper's numbers and ours, which never share an axis in small.

    python -m tools.table_figures --table 5 --scale smoke
    python -m tools.table_figures --table 7 --scale full --output results/figures

Writes OUTPUT/<scale>_table<N>.png and beside it a .json with the numbers, and the runs and commits they come
from. Our numbers are those of results/<scale>_table<N>.csv, from tools.collect: means over seeds, with the
standard deviation as error bar where there are several. Table 4: python -m tools.latency_figure.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.collect import RESULTS
from tools.command_line import tool_parser
from tools.compare import SHOWN
from tools.figure_parts import (
    FIGURES,
    GREY,
    caption,
    color,
    draw_points,
    finish,
    legend_above,
    new_figure,
    share_length,
    share_range,
    spread_of,
)
from tools.paper import SHARED, Place, Table
from tools.records import write_figure
from tools.sweep_grid import SCALES, TABLES
from tools.table_numbers import Number, Numbers, TableNumbers, read_table

BASELINE = "ReLU"
HIGHLIGHTED = "PWLU"
START = "PWLU-"  # of the rows of Tables 5 and 6 that are no baseline
INTERVALS = "N = "  # of the rows of Table 7
LABEL_WIDTH = 30  # characters that fit beside a panel
Points = dict[str, Number | None]  # the numbers of a panel by row


def draw_activations(numbers: TableNumbers) -> Figure:
    """Draw Table 2 or 3: a panel per network and metric, a point per activation function, ReLU as a line."""

    def draw(panel: Axes, points: Points, _: int) -> None:
        for index, activation in enumerate(points):
            colour = 1 if activation == HIGHLIGHTED else 0
            draw_points(panel, [index], [points[activation]], colour)
        baseline = points[BASELINE]
        if baseline:
            panel.axhline(baseline.mean, color=GREY, linestyle="--", linewidth=0.9, zorder=0.5)
        panel.set_xticks(range(len(points)), list(points), rotation=50, ha="right", rotation_mode="anchor")
        panel.set_xlim(-0.6, len(points) - 0.4)

    return _multiples(numbers, draw, "activation function (dashed: ReLU)")


def draw_intervals(numbers: TableNumbers) -> Figure:
    """Draw Table 7: a panel and a line per network over the number of intervals; a missing one breaks it."""

    def draw(panel: Axes, points: Points, column: int) -> None:
        xs = [int(row.removeprefix(INTERVALS)) for row in points]
        means = [number.mean if number else float("nan") for number in points.values()]
        draw_points(panel, xs, list(points.values()), column)
        if any(points.values()):  # a line of nothing would count as data
            panel.plot(xs, means, color=color(column), linewidth=1.2)
        panel.set_xticks(xs)
        panel.set_xlim(xs[0] - 1.5, xs[-1] + 1.5)

    return _multiples(numbers, draw, "number of intervals N")


def draw_starts(numbers: TableNumbers) -> Figure:
    """Draw Table 5 or 6: a point per way to start the boundaries and per mode; the baseline is a line."""
    figure = new_figure(7.6, 3.6)
    panels = list(figure.subplots(1, 2))
    for panel, (title, side) in zip(panels, numbers.sides.items(), strict=True):
        _draw_starts(panel, numbers.places, side)
        finish(panel)
        panel.set_title(title, fontsize=9)
    panels[0].set_ylabel(SHOWN[numbers.places[0].metric], fontsize=9)
    if numbers.scale == "full":
        share_range(panels)
    legend_above(figure, panels[0], columns=3)
    caption(figure, numbers, "error bars and band")
    return figure


DRAW: dict[Table, Callable[[TableNumbers], Figure]] = {
    2: draw_activations,
    3: draw_activations,
    5: draw_starts,
    6: draw_starts,
    7: draw_intervals,
}


def draw_table(numbers: TableNumbers) -> Figure:
    """Draw a table that is made of training runs."""
    return DRAW[numbers.grid.table](numbers)


def record_of(numbers: TableNumbers) -> dict[str, Any]:
    """Return what a figure shows, as plain values in percent, with the runs of our numbers."""
    return {
        "table": numbers.grid.table,
        "scale": numbers.scale,
        "dataset": numbers.dataset,
        "unit": "percent",
        "numbers": [
            {
                "row": place.row,
                "column": place.column,
                "metric": place.metric,
                "paper": numbers.paper[place].mean,
                "ours": numbers.ours[place].describe() if place in numbers.ours else None,
                "diverged": numbers.diverged[place],
            }
            for place in numbers.places
        ],
    }


def _multiples(numbers: TableNumbers, draw: Callable[[Axes, Points, int], None], xlabel: str) -> Figure:
    """Draw a panel per column and metric of a table, the paper's in the first row and ours below.

    The panels of a row show different levels, but as many percentage points each, so that slopes compare;
    at scale full, where ours are comparable with the paper's, the two of a column show the same range.
    """
    columns = list(dict.fromkeys((place.column, place.metric) for place in numbers.places))
    figure = new_figure(max(6.0, 1.5 * len(columns) + 0.6), 4.8)
    rows = [list(row) for row in figure.subplots(2, len(columns), sharex="col")]
    for panels, (title, side) in zip(rows, numbers.sides.items(), strict=True):
        for index, column in enumerate(columns):
            draw(panels[index], _points(numbers.places, side, column), index)
            finish(panels[index])
        unit = "top-1 (%)" if columns[0][1] == "top1" else "AP (%)"
        words = [line for part in title.split(": ") for line in textwrap.wrap(part, LABEL_WIDTH)]
        panels[0].set_ylabel("\n".join([*words, unit]), fontsize=8)
    for panel, (name, metric) in zip(rows[0], columns, strict=True):
        panel.set_title(name if metric == "top1" else f"{name}, {SHOWN[metric]}", fontsize=9)
    _set_ranges(rows, comparable=numbers.scale == "full")
    rows[-1][len(columns) // 2].set_xlabel(xlabel, fontsize=8)
    caption(figure, numbers)
    return figure


def _set_ranges(rows: Sequence[Sequence[Axes]], comparable: bool) -> None:
    for panel in (panel for row in rows for panel in row if not panel.has_data()):
        panel.set_yticks([])
    for column in zip(*rows, strict=True):
        if comparable:
            share_range(column)
    for row in rows:
        share_length(row)


def _points(places: Sequence[Place], side: Numbers, column: tuple[str, str]) -> Points:
    """Return the numbers of a column by row, None for a missing one."""
    return {place.row: side.get(place) for place in places if (place.column, place.metric) == column}


def _draw_starts(panel: Axes, places: Sequence[Place], side: Numbers) -> None:
    (shared,) = (place for place in places if place.column == SHARED)
    modes = list(dict.fromkeys(place.column for place in places if place != shared))
    for index, mode in enumerate(modes):
        points = _points(places, side, (mode, shared.metric))
        xs = [position + 0.24 * (index - 0.5) for position in range(len(points))]
        draw_points(panel, xs, list(points.values()), index, label=mode)
        panel.set_xticks(range(len(points)), [row.removeprefix(START) for row in points])
        panel.set_xlim(-0.6, len(points) - 0.4)  # also where some are missing
    baseline = side.get(shared)
    if baseline:
        panel.axhline(baseline.mean, color=GREY, linestyle="--", linewidth=1, label=shared.row)
        band = (baseline.mean - spread_of(baseline), baseline.mean + spread_of(baseline))
        if baseline.spread is not None:
            panel.axhspan(*band, color=GREY, alpha=0.15, linewidth=0)
    else:
        panel.text(
            0.02, 0.97, "baseline missing", transform=panel.transAxes, va="top", fontsize=6, color=GREY
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line names."""
    parser = tool_parser("table_figures", __doc__)
    parser.add_argument("--table", type=int, choices=TABLES, required=True)
    parser.add_argument("--scale", choices=SCALES, default="full", help="of our runs (full)")
    parser.add_argument("--output", type=Path, default=FIGURES, help=f"folder of the picture ({FIGURES})")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the CSVs ({RESULTS})")
    arguments = parser.parse_args(argv)
    try:
        numbers = read_table(arguments.table, arguments.scale, arguments.results)
    except ValueError as error:
        parser.error(str(error))
    picture = arguments.output / f"{arguments.scale}_table{arguments.table}.png"
    write_figure(picture, draw_table(numbers), record_of(numbers), indent=1)


if __name__ == "__main__":
    main()

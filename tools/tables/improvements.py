"""Draw the improvements over ReLU of the paper's Figures 1 and 5 from Table 2: the paper's numbers and ours.

    python -m tools.tables.improvements --scale small
    python -m tools.tables.improvements --scale full --output results/figures --figures 1

Figure 1 has a strip of networks per activation function, Figure 5 a group of activation functions per
network. Writes OUTPUT/<scale>_figure1.png and _figure5.png, and beside each a .json with the numbers.

An improvement is the mean over seeds of an activation function minus that of ReLU, in percentage points. Its
error bar is the root of the sum of both variances over seeds, as for independent runs; where either side has
one seed, it has none. Without a run, of the activation function or of ReLU, it is missing.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.processes.program import errors_told_by, to_path
from tools.drawing import GREY, color, finish, legend_above, marker, new_figure
from tools.paper.grid import SCALES
from tools.paper.numbers import Place
from tools.records import tool_parser, write_figure
from tools.tables.markdown import Number, TableNumbers, read_table
from tools.tables.measurements import results_of, seed_counts

TABLE = 2
BASELINE = "ReLU"
UNIT = "top-1 over ReLU (percentage points)"
Improvements = dict[str, dict[str, Number | None]]  # by activation function and network


def difference(number: Number, baseline: Number) -> Number:
    """Return how much `number` is above `baseline`; the spread is that of independent runs."""
    spread = None
    if number.spread is not None and baseline.spread is not None:
        spread = math.hypot(number.spread, baseline.spread)
    return Number(number.mean - baseline.mean, spread, min(number.n, baseline.n))


def improvements(places: Iterable[Place], numbers: Mapping[Place, Number]) -> Improvements:
    """Return the improvements over ReLU; None where the number or that of ReLU is missing."""
    found: Improvements = {}
    for place in places:
        if place.row != BASELINE:
            number = numbers.get(place)
            baseline = numbers.get(Place(BASELINE, place.column, place.metric))
            improvement = difference(number, baseline) if number and baseline else None
            found.setdefault(place.row, {})[place.column] = improvement
    return found


def paper_and_ours(numbers: TableNumbers) -> dict[str, Improvements]:
    """Return the improvements of the paper, then ours, by the titles of their panels."""
    places = numbers.grid.places
    return {
        f"Paper: {numbers.grid.scales['full'].dataset}": improvements(places, numbers.paper),
        f"Ours, scale {numbers.scale}: {numbers.dataset}": improvements(places, numbers.ours),
    }


def draw_figure_1(numbers: TableNumbers) -> Figure:
    """Draw a strip per activation function with a point per network; a bar marks the mean of them all."""
    figure = new_figure(7.6, 3.9)
    panels = list(figure.subplots(1, 2))
    for panel, (title, found) in zip(panels, paper_and_ours(numbers).items(), strict=True):
        _draw_strips(panel, found)
        _describe(panel, title, list(found))
    panels[0].set_ylabel(UNIT, fontsize=9)
    _end(figure, panels, numbers, legend_columns=3)
    return figure


def draw_figure_5(numbers: TableNumbers) -> Figure:
    """Draw a group of bars per network, one bar for each activation function."""
    figure = new_figure(7.6, 5.4)
    panels = list(figure.subplots(2, 1))
    for panel, (title, found) in zip(panels, paper_and_ours(numbers).items(), strict=True):
        _draw_bars(panel, found)
        _describe(panel, title, list(next(iter(found.values()))))
        panel.set_ylabel(UNIT.replace(" (", "\n("), fontsize=9)
    _end(figure, panels, numbers, legend_columns=6)
    return figure


DRAW = {1: draw_figure_1, 5: draw_figure_5}


def _draw_strips(panel: Axes, found: Improvements) -> None:
    networks = list(next(iter(found.values())))
    for index, network in enumerate(networks):
        shift = 0.17 * (index - (len(networks) - 1) / 2)
        points = {strip + shift: numbers[network] for strip, numbers in enumerate(found.values())}
        known = {x: number for x, number in points.items() if number is not None}
        if known:
            means, spreads = _means_and_spreads(known.values())
            style: dict[str, Any] = {"fmt": marker(index), "markersize": 5, "linewidth": 1.2, "capsize": 2}
            panel.errorbar(list(known), means, yerr=spreads, color=color(index), label=network, **style)
        _mark_missing(panel, points.keys() - known.keys(), index)
    for position, numbers in enumerate(found.values()):
        means = [number.mean for number in numbers.values() if number is not None]
        # Without one of the networks the mean would be one of other networks than its neighbours'.
        if len(means) == len(networks):
            panel.hlines(statistics.mean(means), position - 0.4, position + 0.4, color="black", linewidth=1.4)
    panel.hlines([], 0, 0, color="black", linewidth=1.4, label="mean of the networks")


def _draw_bars(panel: Axes, found: Improvements) -> None:
    width = 0.8 / len(found)
    for index, (activation, networks) in enumerate(found.items()):
        shift = width * (index - (len(found) - 1) / 2)
        bars = {group + shift: number for group, number in enumerate(networks.values())}
        known = {x: number for x, number in bars.items() if number is not None}
        means, spreads = _means_and_spreads(known.values())
        thin = {"linewidth": 0.9, "capsize": 1.5}
        style: dict[str, Any] = {"color": color(index), "label": activation, "error_kw": thin}
        panel.bar(list(known), means, width * 0.92, yerr=spreads, **style)
        _mark_missing(panel, bars.keys() - known.keys(), index)


def _means_and_spreads(numbers: Iterable[Number]) -> tuple[list[float], list[float]]:
    pairs = [(one.mean, math.nan if one.spread is None else one.spread) for one in numbers]
    return [mean for mean, _ in pairs], [spread for _, spread in pairs]


def _mark_missing(panel: Axes, xs: Iterable[float], index: int) -> None:
    style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6}
    for x in xs:
        panel.text(x, 0.02, "missing", transform=panel.get_xaxis_transform(), color=color(index), **style)


def _describe(panel: Axes, title: str, names: list[str]) -> None:
    finish(panel)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.6, len(names) - 0.4)  # also where some are missing
    panel.set_title(title, fontsize=9)


def _end(figure: Figure, panels: list[Axes], numbers: TableNumbers, legend_columns: int) -> None:
    if numbers.scale == "full":  # only then the numbers compare
        ranges = [panel.get_ylim() for panel in panels if panel.has_data()]
        for panel in panels:
            panel.set_ylim(min(low for low, _ in ranges), max(high for _, high in ranges))
    legend_above(figure, panels[0], legend_columns)
    diverged = sum(one.value is None for one in numbers.measurements)
    seeds = seed_counts([number.n for number in numbers.ours.values()], diverged)
    text = f"Ours: {SCALES[numbers.scale]}.\n{seeds}; error bars: standard deviation over seeds, if several."
    figure.supxlabel(text, fontsize=7, color=GREY)


def record_of(figure: int, numbers: TableNumbers) -> dict[str, Any]:
    """Return what a figure shows, as plain values: improvements in percentage points."""
    paper, ours = paper_and_ours(numbers).values()
    return {
        "figure": figure,
        "scale": numbers.scale,
        "dataset": numbers.dataset,
        "unit": "percentage points of top-1 over ReLU",
        "improvements": [
            {
                "activation": activation,
                "network": network,
                "paper": published and asdict(published),
                "ours": (found := ours[activation][network]) and asdict(found),
            }
            for activation, networks in paper.items()
            for network, published in networks.items()
        ],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line names."""
    parser = tool_parser("tables.improvements", __doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="of our runs (full)")
    parser.add_argument(
        "--output", type=to_path, help="folder of the pictures (that of the results, figures/)"
    )
    parser.add_argument("--results", type=to_path, help="folder of what tools.collect wrote")
    parser.add_argument("--figures", type=int, nargs="+", choices=DRAW, default=list(DRAW), help="1 5, both")
    arguments = parser.parse_args(argv)
    results = arguments.results or results_of(arguments.scale)
    output = arguments.output or results / "figures"
    with errors_told_by(parser):
        numbers = read_table(TABLE, arguments.scale, results)
        if not numbers.ours:
            raise ValueError(
                f"{results} has no numbers of table 2 at scale {numbers.scale}. {numbers.how_to_run}"
            )
        for figure in arguments.figures:
            picture = output / f"{arguments.scale}_figure{figure}.png"
            write_figure(picture, DRAW[figure](numbers), record_of(figure, numbers), indent=1)


if __name__ == "__main__":
    main()

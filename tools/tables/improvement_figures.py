"""The pictures of the paper's Figures 1 and 5: a panel of the paper's improvements, and one of ours."""

import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.drawing import (
    GREY,
    caption,
    color,
    draw_points,
    finish,
    legend_above,
    mark_missing,
    new_figure,
    share_range,
    spread_of,
)
from tools.tables.numbers import TableNumbers
from tools.tables.over_relu import Improvements, sides

UNIT = "top-1 over ReLU (percentage points)"


def draw_figure_1(numbers: TableNumbers) -> Figure:
    """Draw a strip per activation function with a point per network; a bar marks the mean of them all.

    A strip that lacks a network has no mean: it would be one of other networks than its neighbours'.
    """
    figure = new_figure(7.6, 3.9)
    panels = list(figure.subplots(1, 2))
    for panel, (title, found) in zip(panels, sides(numbers).items(), strict=True):
        _draw_strips(panel, found)
        _describe(panel, title, list(found))
    panels[0].set_ylabel(UNIT, fontsize=9)
    _end(figure, panels, numbers, legend_columns=3)
    return figure


def draw_figure_5(numbers: TableNumbers) -> Figure:
    """Draw a group of bars per network, one bar for each activation function."""
    figure = new_figure(7.6, 5.4)
    panels = list(figure.subplots(2, 1))
    for panel, (title, found) in zip(panels, sides(numbers).items(), strict=True):
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
        xs = [strip + shift for strip in range(len(found))]
        draw_points(panel, xs, [strip[network] for strip in found.values()], index, label=network)
    for position, strip in enumerate(found.values()):
        known = [number.mean for number in strip.values() if number is not None]
        if len(known) == len(networks):
            panel.hlines(statistics.mean(known), position - 0.4, position + 0.4, color="black", linewidth=1.4)
    panel.hlines([], 0, 0, color="black", linewidth=1.4, label="mean of the networks")


def _draw_bars(panel: Axes, found: Improvements) -> None:
    width = 0.8 / len(found)
    for index, (activation, networks) in enumerate(found.items()):
        xs = [group + width * (index - (len(found) - 1) / 2) for group in range(len(networks))]
        known = [(x, number) for x, number in zip(xs, networks.values(), strict=True) if number is not None]
        panel.bar(
            [x for x, _ in known],
            [number.mean for _, number in known],
            width * 0.92,
            yerr=[spread_of(number) for _, number in known],
            color=color(index),
            error_kw={"linewidth": 0.9, "capsize": 1.5},
            label=activation,
        )
        mark_missing(panel, sorted(set(xs) - {x for x, _ in known}), index)


def _describe(panel: Axes, title: str, names: list[str]) -> None:
    finish(panel)
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.6, len(names) - 0.4)  # also where some are missing
    panel.set_title(title, fontsize=9)


def _end(figure: Figure, panels: list[Axes], numbers: TableNumbers, legend_columns: int) -> None:
    """Give the panels one range if their numbers compare, and the figure its legend and caption."""
    if numbers.scale == "full":
        share_range(panels)
    legend_above(figure, panels[0], legend_columns)
    caption(figure, numbers)

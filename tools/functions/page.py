"""A page of learned PWLUs as in the paper's Figure 7, with their inputs, and a page of how they changed."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from engine.records.curves import COLUMNS, LINE_COLORS, draw_function, end_of, prepare_panel
from engine.records.learned_functions import LayerFunctions
from tools.functions.statistics import Histogram

PANEL_INCHES = (3.3, 2.5)
HISTOGRAM_INCHES = 0.8
NARROWEST_INCHES = 5.2  # a page that the title fits on
BINS = 60  # of a histogram of inputs
FEW = len(LINE_COLORS)  # functions that get a colour of their own
TAILS = 100.0  # as long, in widths of its region, as a function is drawn dashed
LIGHTEST = 0.85  # of the colour map; its last part is too faint on white
_draw_thin = functools.partial(draw_function, width=0.5, circle=2, alpha=0.6, dots=False)  # one of many


def panel_range(layer: LayerFunctions, functions: Sequence[int]) -> tuple[float, float]:
    """Return the input range that a panel with these functions shows: their regions with a piece of tails."""
    ends = [layer.functions[index].corners()[0][[0, -1]].sort().values.tolist() for index in functions]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return (low, high) if low < high else (low - 1, high + 1)


def panel_histogram(layer: LayerFunctions, functions: Sequence[int]) -> Histogram:
    """Return an empty histogram of these functions' inputs, over the range of their panel."""
    low, high = (torch.full((len(functions),), end) for end in panel_range(layer, functions))
    return Histogram.between(low, high, BINS)


def draw_page(
    layers: Mapping[str, LayerFunctions],
    functions: Mapping[str, Sequence[int]],
    histograms: Mapping[str, Histogram],
    title: str,
) -> Figure:
    """Return a panel per layer with the chosen functions, and under it the histogram of their inputs, if any.

    Up to six functions have a colour and a histogram each; of more, the colour runs with the channel, and the
    histogram is of all their inputs.
    """
    columns = min(COLUMNS, len(functions))
    rows = -(-len(functions) // columns)
    height = PANEL_INCHES[1] + (HISTOGRAM_INCHES if histograms else 0)
    size = (max(PANEL_INCHES[0] * columns, NARROWEST_INCHES), height * rows + 0.6)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    for number, (name, chosen) in enumerate(functions.items()):
        cell, first = grid[divmod(number, columns)], number % columns == 0
        colors = LINE_COLORS[: len(chosen)] if len(chosen) <= FEW else _shades(len(chosen))
        panel, below = _axes(figure, cell, with_inputs=bool(histograms), first=first)
        prepare_panel(panel)
        draw = _draw_thin if len(chosen) > FEW else draw_function
        for index, color in zip(chosen, colors, strict=True):
            draw(panel, layers[name].functions[index].corners(), color)
        panel.set_xlim(panel_range(layers[name], chosen))
        total = layers[name].total
        shown = f"{len(chosen)} of {total}" if len(chosen) < total else f"all {total}"
        shown = "layer-wise" if total == 1 else shown
        panel.set_title(f"{end_of(name or 'PWLU')}  ({shown})", fontsize=9)
        if below is not None:
            _draw_inputs(below, histograms[name], colors)
    many = any(len(chosen) > FEW for chosen in functions.values())
    order = "; dark to light: first to last channel" if many else ""
    figure.suptitle(f"{title}\n(circles: boundaries $B_L$ and $B_R${order})", fontsize=10)
    figure.supxlabel("input $x$", fontsize=9)
    return figure


def draw_evolution(
    steps: Mapping[str, Mapping[str, LayerFunctions]], functions: Mapping[str, Sequence[int]], title: str
) -> Figure:
    """Return a row per layer, or of several layers of one function, and a panel per chosen function.

    `steps` holds the layers by the legend's words for each step. Dashed is the first, with its tails.
    """
    rows = _rows(functions)
    columns = max(len(row) for row in rows)
    size = (max(2.6 * columns + 0.4, NARROWEST_INCHES), 2.2 * len(rows) + 1)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(panels, rows, strict=True):
        for panel in line[len(row) :]:
            panel.set_axis_off()
        for panel, (name, index) in zip(line, row, strict=False):
            _draw_history(panel, {step: layers[name] for step, layers in steps.items()}, index)
            total = next(iter(steps.values()))[name].total
            which = "(layer-wise)" if total == 1 else f"channel {index}"
            panel.set_title(f"{end_of(name or 'PWLU')}  {which}", fontsize=8)
    _add_legend(figure, panels[0, 0])
    figure.suptitle(f"{title}\n(circles: boundaries $B_L$ and $B_R$)", fontsize=10)
    for panel in panels[-1]:  # a label of the whole figure would lie under the legend
        panel.set_xlabel("input $x$", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("output PWLU($x$)", fontsize=9)
    return figure


def _rows(functions: Mapping[str, Sequence[int]]) -> list[list[tuple[str, int]]]:
    if max(len(chosen) for chosen in functions.values()) > 1:
        return [[(name, index) for index in chosen] for name, chosen in functions.items()]
    places = [(name, chosen[0]) for name, chosen in functions.items()]
    return [places[first : first + COLUMNS] for first in range(0, len(places), COLUMNS)]


def _axes(figure: Figure, cell: SubplotSpec, *, with_inputs: bool, first: bool) -> tuple[Axes, Axes | None]:
    """Return a layer's panel and, if wanted, a flat one under it; the first in a row says what is drawn."""
    below = None
    if with_inputs:
        parts = cell.subgridspec(2, 1, height_ratios=(PANEL_INCHES[1], HISTOGRAM_INCHES), hspace=0)
        panel = figure.add_subplot(parts[0])
        below = figure.add_subplot(parts[1], sharex=panel)
        panel.tick_params(labelbottom=False)
        below.set_ylabel("inputs (%)" if first else "", fontsize=9)
    else:
        panel = figure.add_subplot(cell)
    panel.set_ylabel("output PWLU($x$)" if first else "", fontsize=9)
    return panel, below


def _shades(count: int) -> list[str]:
    return [to_hex(color) for color in colormaps["viridis"](np.linspace(0, LIGHTEST, count))]


def _draw_history(panel: Axes, steps: Mapping[str, LayerFunctions], index: int) -> None:
    # Earlier ones are lighter and broader, so that they are seen under later ones.
    prepare_panel(panel)
    shades, ages = reversed(_shades(len(steps))), np.linspace(1, 0, len(steps))
    for (step, layer), shade, age in zip(steps.items(), shades, ages, strict=True):
        corners = layer.functions[index].corners()
        draw_function(
            panel, corners, shade, width=1.2 + 2.4 * age, circle=4 + 3 * age, dots=False, label=step
        )
    x, y = next(iter(steps.values())).functions[index].corners(TAILS)
    limits = panel.get_xlim(), panel.get_ylim()
    panel.plot(x, y, "--", color="black", linewidth=0.7, label="start")
    panel.set(xlim=limits[0], ylim=limits[1])


def _add_legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    inches = [0.5 + 0.07 * len(label) for label in labels]  # of an entry in this size
    width = figure.get_figwidth()
    figure.legend(
        handles,
        labels,
        title="optimizer step (epoch)",
        loc="outside lower center",
        ncols=len(labels) if sum(inches) < width else int(width / max(inches)),
        fontsize=9,
        title_fontsize=9,
        frameon=False,
    )


def _draw_inputs(panel: Axes, histogram: Histogram, colors: Sequence[str]) -> None:
    if not histogram.counts.any():
        panel.text(0.5, 0.5, "no input", transform=panel.transAxes, ha="center", va="center", fontsize=8)
        panel.set_yticks([])
        return
    edges, shares = histogram.edges[0].cpu().numpy(), 100 * histogram.shares().cpu().numpy()
    if len(shares) <= FEW:
        for share, color in zip(shares, colors, strict=True):
            panel.stairs(share, edges, color=color, linewidth=1)
    else:
        panel.stairs(shares.mean(0), edges, color="0.45", fill=True)
    panel.set_ylim(bottom=0)
    panel.margins(y=0.1)
    outside = 100 * histogram.outside()
    if outside >= 0.05:
        words = f"{outside:.1f} % outside"
        panel.text(0.98, 0.93, words, transform=panel.transAxes, ha="right", va="top", fontsize=7)
    panel.tick_params(labelsize=8)

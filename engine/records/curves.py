"""Pictures of learned PWLUs as in the paper's Figure 7, and the colours of all figures."""

import itertools

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no display is needed, and a cluster has none
from torch import nn

from engine.records.learned_functions import LayerFunctions
from pwlu import PWLU

MAX_LAYERS = 8
FUNCTIONS_PER_LAYER = 5
COLUMNS = 4
LONGEST_NAME = 28  # characters that fit above a panel
# Okabe and Ito's colours without black, for any colour vision: orange, sky blue, bluish green, yellow, blue,
# vermillion, reddish purple.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# For lines on white: the darkest first, without the yellow, which is too faint.
LINE_COLORS = tuple(OKABE_ITO[number] for number in (4, 5, 2, 6, 1, 0))


def pwlu_layers(model: nn.Module) -> dict[str, PWLU]:
    """Return the model's PWLU layers by name, in the order of their definition."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}


def spread(count: int, at_most: int) -> list[int]:
    """Return up to `at_most` indices evenly spread over range(count), with both ends; of 1, the middle."""
    if count <= at_most:
        return list(range(count))
    if at_most == 1:
        return [round((count - 1) / 2)]
    return [round(number * (count - 1) / (at_most - 1)) for number in range(at_most)]


def function_vertices(layer: PWLU, index: int, margin: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of the corners of a layer's function `index` (see `LearnedFunction.corners`)."""
    return LayerFunctions.of(layer, [index]).functions[index].corners(margin)


def draw_curves(model: nn.Module, title: str) -> Figure | None:
    """Return a figure of the model's PWLUs, or None for a model without any."""
    layers = list(pwlu_layers(model).items())
    if not layers:
        return None
    chosen = [layers[number] for number in spread(len(layers), MAX_LAYERS)]
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    width, height = 3.4 * columns + 0.7, 2.8 * rows + 0.9
    figure = Figure(figsize=(width, height), dpi=110)
    # margins in inches; matplotlib's automatic layout would draw everything twice
    figure.subplots_adjust(
        left=0.6 / width,
        right=1 - 0.15 / width,
        bottom=0.6 / height,
        top=1 - 0.7 / height,
        wspace=0.2,
        hspace=0.3,
    )
    figure.suptitle(f"{title}    (circles: boundaries $B_L$ and $B_R$)")
    figure.supxlabel("input", y=0.1 / height)
    figure.supylabel("output", x=0.1 / width)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, (name, layer) in zip(panels, chosen, strict=False):
        _draw_layer(panel, name, layer)
    for panel in list(panels)[len(chosen) :]:
        panel.set_axis_off()
    return figure


def end_of(name: str) -> str:
    """Return the end of a long name."""
    return name if len(name) <= LONGEST_NAME else "\N{HORIZONTAL ELLIPSIS}" + name[1 - LONGEST_NAME :]


def render(figure: Figure) -> np.ndarray:
    """Return a figure as a picture, uint8 (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def prepare_panel(panel: Axes) -> None:
    """Draw the lines through zero and shrink the axes' numbers."""
    panel.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    panel.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    panel.tick_params(labelsize=8)


def draw_function(
    panel: Axes,
    corners: tuple[torch.Tensor, torch.Tensor],
    color: str,
    *,
    width: float = 1.4,
    circle: float = 5,
    alpha: float = 1,
    dots: bool = True,
    label: str | None = None,
) -> None:
    """Draw a function as a line, its boundaries as circles and the points between as dots.

    `width` and `circle`, its diameter, are in points of 1/72 inch; `alpha` is the line's opacity.
    """
    x, y = corners
    panel.plot(x, y, color=color, linewidth=width, alpha=alpha, label=label)
    panel.plot(x[[1, -2]], y[[1, -2]], "o", color=color, markersize=circle, markerfacecolor="white")
    if dots:
        panel.plot(x[2:-2], y[2:-2], ".", color=color, markersize=2.5)


def _draw_layer(panel: Axes, name: str, layer: PWLU) -> None:
    prepare_panel(panel)
    chosen = spread(layer.num_parameters, FUNCTIONS_PER_LAYER)
    for index, color in zip(chosen, itertools.cycle(LINE_COLORS), strict=False):
        draw_function(panel, function_vertices(layer, index), color)
    count = f"{layer.num_parameters} functions" if layer.num_parameters > 1 else "1 function"
    panel.set_title(f"{end_of(name or 'PWLU')}  ({count})", fontsize=9)

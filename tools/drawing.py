"""What the figures of the tools share: size, colours, shapes, legend, files."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no display is needed, and a cluster has none

from engine.records.curves import LINE_COLORS

DPI = 200  # at the size of the figure, enough for print
MARKERS = "osD^vPX"  # with the colours, so that neither has to be told apart alone
GREY = "0.45"


def color(index: int) -> str:
    """Return a colour that any reader can tell from the others, up to six."""
    return LINE_COLORS[index % len(LINE_COLORS)]


def marker(index: int) -> str:
    """Return a shape, up to seven different ones."""
    return MARKERS[index % len(MARKERS)]


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure of a size in inches, at print resolution."""
    return Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")


def finish(panel: Axes) -> None:
    """Make a panel quiet: no frame, small labels, faint horizontal lines behind what is drawn."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.margins(y=0.08)


def new_layer_figure(layers: int, height_in: float) -> Figure:
    """Return an empty figure for panels over so many layers of a network."""
    return new_figure(2.4 + 0.32 * layers, height_in)


def name_layers(panel: Axes, names: Sequence[str]) -> None:
    """Write the layers' names under a panel."""
    panel.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")


def legend_above(figure: Figure, panel: Axes, columns: int) -> None:
    """Put the legend of one panel, which holds for all of them, above all."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, as notebooks show it."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()

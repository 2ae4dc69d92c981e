"""What the figures of tables share: size, colours, points with error bars, missing numbers, files."""

import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: no display is needed, and a cluster has none

from engine.records.curves import LINE_COLORS
from tools.paper.grid import SCALES
from tools.tables.numbers import Number, TableNumbers

DPI = 200  # at the size of the figure, enough for print
MARKERS = "osD^vPX"  # with the colours, so that neither has to be told apart alone
GREY = "0.45"
FIGURES = Path("results/figures")


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


def draw_points(
    panel: Axes, xs: Sequence[float], numbers: Sequence[Number | None], index: int, label: str | None = None
) -> None:
    """Draw numbers with their standard deviations, in colour and shape `index`; None is marked as missing."""
    known = [(x, number) for x, number in zip(xs, numbers, strict=True) if number is not None]
    if known:
        panel.errorbar(
            [x for x, _ in known],
            [number.mean for _, number in known],
            yerr=[spread_of(number) for _, number in known],
            color=color(index),
            fmt=marker(index),
            markersize=5,
            linewidth=1.2,
            capsize=2,
            label=label,
        )
    mark_missing(panel, [x for x, number in zip(xs, numbers, strict=True) if number is None], index)


def spread_of(number: Number) -> float:
    """Return the half length of a number's error bar, NaN for none at all."""
    return float("nan") if number.spread is None else number.spread


def mark_missing(panel: Axes, xs: Iterable[float], index: int) -> None:
    """Write at the foot of a panel, in colour `index`, where a number is missing."""
    for x in xs:
        panel.text(
            x,
            0.02,
            "missing",
            transform=panel.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6,
            color=color(index),
        )


def new_layer_figure(layers: int, height_in: float) -> Figure:
    """Return an empty figure for panels over so many layers of a network."""
    return new_figure(2.4 + 0.32 * layers, height_in)


def name_layers(panel: Axes, names: Sequence[str]) -> None:
    """Write the layers' names under a panel."""
    panel.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")


def share_range(panels: Sequence[Axes]) -> None:
    """Give panels the range of values that all of them need; one without values has no say."""
    ranges = [panel.get_ylim() for panel in panels if panel.has_data()]
    for panel in panels:
        panel.set_ylim(min(low for low, _ in ranges), max(high for _, high in ranges))


def share_length(panels: Sequence[Axes]) -> None:
    """Give panels ranges of one length, each around its own middle, so that differences compare."""
    filled = [panel for panel in panels if panel.has_data()]
    length = max((high - low for low, high in (panel.get_ylim() for panel in filled)), default=0.0)
    for panel in filled:
        middle = sum(panel.get_ylim()) / 2
        panel.set_ylim(middle - length / 2, middle + length / 2)


def legend_above(figure: Figure, panel: Axes, columns: int) -> None:
    """Put the legend of one panel, which holds for all of them, above all."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)


def caption(figure: Figure, numbers: TableNumbers, bars: str = "error bars") -> None:
    """Write under a figure how much our numbers mean, how many seeds they rest on, and what `bars` show."""
    counts = [len(number.runs) for number in numbers.ours.values()]
    several = ", where there are several" if 1 in counts else ""
    spread = "so no standard deviation"
    if max(counts, default=0) > 1:
        spread = f"{bars}: standard deviation over seeds{several}"
    seeds = seed_counts(counts, numbers.diverged.total())
    figure.supxlabel(f"Ours: {SCALES[numbers.scale]}.\n{seeds}, {spread}.", fontsize=7, color=GREY)


def seed_counts(counts: Collection[int], diverged: int) -> str:
    """Return on how many seeds numbers rest: `n = 3 seeds`, `n = 1 to 3 seeds (2 diverged and are missing)`.

    Args:
        counts: of seeds, of each number.
        diverged: how many more runs or numbers of runs there would be, had they not diverged.
    """
    least, most = min(counts, default=0), max(counts, default=0)
    lost = f" ({diverged} diverged and {'is' if diverged == 1 else 'are'} missing)" if diverged else ""
    return f"n = {least if least == most else f'{least} to {most}'} {'seed' if most == 1 else 'seeds'}{lost}"


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, as notebooks show it."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()

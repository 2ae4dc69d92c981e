"""The picture of the paper's Figure 6: how the IOUs of Eq. 7 are distributed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.records.curves import LINE_COLORS

BINS = [number / 25 for number in range(26)]
MOST_OVERLAID = 3  # more outlines in one panel cannot be told apart


def draw_ious(entries: Sequence[dict[str, Any]]) -> Figure:
    """Return histograms of `entries` of a record of tools.functions.boundary_iou: overlaid up to three, else in rows.

    Each shows the share of a checkpoint's functions, in percent, by IOU.
    """
    rows = 1 if len(entries) <= MOST_OVERLAID else len(entries)
    figure = Figure(figsize=(6.4, 4.2 if rows == 1 else 0.8 + 1.6 * rows), dpi=130, layout="constrained")
    panels = list(figure.subplots(rows, 1, squeeze=False, sharex=True, sharey=True).flat)
    for number, entry in enumerate(entries):
        panel = panels[0 if rows == 1 else number]
        _draw(panel, entry, LINE_COLORS[number % len(LINE_COLORS)])
    low, high = panels[0].get_ylim()  # of all panels
    panels[0].set_ylim(low, high * (1.05 + 0.08 * len(entries) if rows == 1 else 1.3))  # room for the legend
    for panel in panels:
        panel.set_xlim(0, 1)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, loc="upper left", framealpha=1, edgecolor="none")
    figure.supxlabel(r"IOU of $[B_L, B_R]$ and $[x_{p0.05}, x_{p0.95}]$ (Eq. 7)", fontsize=10)
    figure.supylabel("functions (%)", fontsize=10)
    figure.suptitle("Alignment of boundaries and inputs", fontsize=11)
    return figure


def _draw(panel: Axes, entry: dict[str, Any], color: str) -> None:
    """Draw one checkpoint's histogram; a dashed line stands at its median."""
    ious = [value for layer in entry["layers"].values() for value in layer["iou"]]
    shares = np.full(len(ious), 100 / len(ious))
    median = entry["summary"]["quartile2"]
    unit = "function" if len(ious) == 1 else "functions"
    panel.hist(ious, BINS, weights=shares, color=color, alpha=0.3)
    panel.hist(
        ious,
        BINS,
        weights=shares,
        histtype="step",
        color=color,
        linewidth=1.5,
        label=f"{entry['label']}: {len(ious)} {unit}, median {median:.2f}",
    )
    panel.axvline(median, color=color, linestyle="--", linewidth=1)

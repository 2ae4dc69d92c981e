"""How well the boundaries of trained PWLUs cover their inputs: the IOU of the paper's Eq. 7, as in Figure 6.

    python -m tools.functions.boundary_iou runs/digits_r18_pwlu --output results/iou.json
    python -m tools.functions.boundary_iou runs/mask_rcnn_r50_pwlu --output results/iou.json --images 500
    python -m tools.functions.boundary_iou runs/mbv3_fix_init_10 runs/mbv3_pwlu --output results/iou.json \\
        --labels fix-init-10 stat-realign --images 5000 --set data.root=/datasets/imagenet

Sends the validation images through each network, a classifier or a detector, in evaluation mode, and takes
the 5th and the 95th percentile of every function's input from a histogram, within 0.8 % (see
tools/functions/statistics.py). Writes a record with every function's numbers and, beside it, a picture.

A detector's PWLU counts what it gets on all levels of the pyramid and in all regions. One that gets nothing,
as in a mask head where nothing was detected, has no IOU: it is left out and named.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from engine.records.console import say
from engine.records.curves import LINE_COLORS
from pwlu import PWLU
from tools.functions.inputs import Network, examine_all
from tools.functions.statistics import Quantiles
from tools.records import counted, tool_parser, write_figure

BINS = [number / 25 for number in range(26)]
ENDS = ("left", "right", "p05", "p95")  # what the IOU of a function is made of
MOST_OVERLAID = 3  # more outlines in one panel cannot be told apart
MEANING = (
    "iou: length of the intersection over length of the union of [left, right], a function's boundaries, and "
    "[p05, p95], percentiles of its input (Eq. 7); 0 where right < left or both have no length. Percentiles "
    "are off by less than 0.8 % of themselves (by 2**-16 near zero); elements are counted per function, over "
    "all calls of its layer. layers_without_input: those that no image brought anything to; they have no "
    "percentiles and are in no distribution"
)


def boundary_iou(left: Tensor, right: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return Eq. 7: |[left, right] and [low, high]| / |[left, right] or [low, high]|, float64.

    All of one shape, low <= high. The union of two intervals apart does not count the gap between them. With
    right < left, where a PWLU has no inside, and where both intervals are points, the IOU is 0.
    """
    left, right, low, high = (tensor.detach().double() for tensor in (left, right, low, high))
    both = (torch.minimum(right, high) - torch.maximum(left, low)).clamp(min=0)
    either = (right - left).clamp(min=0) + (high - low) - both
    return torch.where(either > 0, both / either, torch.zeros_like(both))


def describe_layer(layer: PWLU, inputs: Quantiles) -> dict[str, Any]:
    """Return a layer's boundaries, percentiles and IOUs, a list each with an entry per function."""
    ends = [layer.left.detach().cpu(), layer.right.detach().cpu(), inputs.at(0.05), inputs.at(0.95)]
    lists = dict(zip(ENDS, ends, strict=True)) | {"iou": boundary_iou(*ends)}
    return {"elements": inputs.count} | {
        name: [float(f"{value:.7g}") for value in values.tolist()] for name, values in lists.items()
    }


def summarize(layers: dict[str, Any]) -> dict[str, float | int]:
    """Return the distribution over all functions in a few numbers."""
    left, right, low, high, ious = (
        np.concatenate([layer[name] for layer in layers.values()]) for name in (*ENDS, "iou")
    )
    quartiles = np.quantile(ious, [0.25, 0.5, 0.75])
    return {
        "functions": len(ious),
        "mean": round(float(ious.mean()), 4),
        **{f"quartile{number}": round(float(value), 4) for number, value in enumerate(quartiles, 1)},
        "with_right_below_left": int((right < left).sum()),
        "with_p05_equal_p95": int((low == high).sum()),
    }


def examine(network: Network) -> dict[str, Any]:
    """Return the entry of the record for one checkpoint."""
    inputs = {name: Quantiles(layer.num_parameters) for name, layer in network.layers.items()}
    reached = network.watch(lambda name, rows: inputs[name].add(rows), list(inputs), "percentiles")
    layers = {name: describe_layer(network.layers[name], inputs[name]) for name in reached}
    return {"summary": summarize(layers), **network.entry(layers)}


def draw_ious(entries: Sequence[dict[str, Any]]) -> Figure:
    """Return Figure 6: histograms of a record's checkpoints, overlaid up to three, else in rows.

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
    ious = [value for layer in entry["layers"].values() for value in layer["iou"]]
    shares = np.full(len(ious), 100 / len(ious))
    median = entry["summary"]["quartile2"]
    label = f"{entry['label']}: {counted(len(ious), 'function')}, median {median:.2f}"
    panel.hist(ious, BINS, weights=shares, color=color, alpha=0.3)
    panel.hist(ious, BINS, weights=shares, histtype="step", color=color, linewidth=1.5, label=label)
    panel.axvline(median, color=color, linestyle="--", linewidth=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    entries, picture = examine_all(tool_parser("functions.boundary_iou", __doc__), argv, examine)
    for entry in entries:
        found = entry["summary"]
        say(
            f"{entry['label']}: {found['functions']} functions, IOU {found['mean']:.3f} on average, median "
            f"{found['quartile2']:.3f}, middle half {found['quartile1']:.3f} to {found['quartile3']:.3f}"
        )
    write_figure(picture, draw_ious(entries), {"meaning": MEANING, "checkpoints": entries})


if __name__ == "__main__":
    main()

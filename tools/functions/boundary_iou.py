"""How well the boundaries of trained PWLUs cover their inputs: the IOU of the paper's Eq. 7, as in Figure 6.

    python -m tools.functions.boundary_iou runs/digits_r18_pwlu --output results/iou.json
    python -m tools.functions.boundary_iou runs/mask_rcnn_r50_pwlu --output results/iou.json --images 500
    python -m tools.functions.boundary_iou runs/mbv3_fix_init_10 runs/mbv3_pwlu --labels fix-init-10 stat-realign \\
        --output results/iou.json --images 5000 --set data.root=/datasets/imagenet

Sends the validation images three times through each network, a classifier or a detector, in evaluation
mode, and takes the 5th and the 95th percentile of every function's input: exactly, not by a sketch, in
bounded memory (32 KiB per function; see tools/functions/quantiles.py). Writes a record with every function's numbers
and, beside it, a picture of the distributions.

A detector's PWLU counts what it gets on all levels of the pyramid and in all regions. One that gets nothing,
as in a mask head where nothing was detected, has no IOU: it is left out of the distribution, and named in a
printed sentence and in the record.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.records.console import say
from pwlu import PWLU
from tools.functions.iou_picture import draw_ious
from tools.functions.quantiles import PASSES, ExactQuantiles
from tools.functions.site_inputs import Network, open_network
from tools.functions.trained import Trained, add_image_options, add_run_options, examine_all
from tools.records import add_record_option, tool_parser, write_figure

FRACTIONS = (0.05, 0.95)
MEANING = (
    "iou: length of the intersection over length of the union of [left, right], a function's boundaries, and "
    "[p05, p95], percentiles of its input (Eq. 7); 0 where right < left or both have no length. A percentile "
    "is the element at round(fraction * (elements - 1)) of the sorted inputs, without error; elements are "
    "counted per function, over all calls of its layer. layers_without_input: those that no image brought "
    "anything to; they have no percentiles and are in no distribution"
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


def input_percentiles(network: Network, fractions: Sequence[float] = FRACTIONS) -> dict[str, ExactQuantiles]:
    """Return the quantiles of the inputs of a network's PWLUs by name, in three passes over its images.

    PWLUs that get no input are left out; `Network.watch` names them.

    Raises:
        ValueError: an input is NaN or infinite, the passes differ, or an image cannot be read.
    """
    quantiles = {
        name: ExactQuantiles(layer.num_parameters, fractions) for name, layer in network.layers.items()
    }
    for number in range(1, PASSES + 1):
        reached = network.watch(
            lambda name, rows: quantiles[name].update(rows), list(quantiles), f"pass {number} of {PASSES}"
        )
        if number == 1:
            for name in quantiles.keys() - set(reached):
                del quantiles[name]
        for name, found in quantiles.items():
            try:
                found.end_pass()
            except ValueError as error:
                raise ValueError(
                    f"{network.label}: inputs of {name}: {error}; the passes have to be the same, so take a "
                    "device whose arithmetic is: --set runtime.device=cpu"
                ) from error
    return quantiles


def describe_layer(layer: PWLU, quantiles: ExactQuantiles) -> dict[str, Any]:
    """Return a layer's boundaries, percentiles and IOUs, a list each with an entry per function."""
    low, high = quantiles.result()
    left, right = layer.left.detach().cpu(), layer.right.detach().cpu()
    lists = {"left": left, "right": right, "p05": low, "p95": high}
    lists["iou"] = boundary_iou(left, right, low, high)
    return {"elements": quantiles.count} | {name: _short(values) for name, values in lists.items()}


def summarize(layers: dict[str, Any]) -> dict[str, float | int]:
    """Return the distribution over all functions in a few numbers."""
    ious = torch.tensor([value for layer in layers.values() for value in layer["iou"]])
    ends = {
        name: torch.tensor([value for layer in layers.values() for value in layer[name]])
        for name in ("left", "right", "p05", "p95")
    }
    quartiles = torch.quantile(ious, torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {
        "functions": len(ious),
        "mean": round(ious.mean().item(), 4),
        **{f"quartile{number}": round(value, 4) for number, value in enumerate(quartiles, 1)},
        "with_right_below_left": int((ends["right"] < ends["left"]).sum()),
        "with_p05_equal_p95": int((ends["p05"] == ends["p95"]).sum()),
    }


def examine(
    trained: Trained, *, split: str = "val", images: int | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the entry of the record for one checkpoint; arguments and errors as `open_network`."""
    network = open_network(trained, split=split, images=images, overrides=overrides)
    quantiles = input_percentiles(network)
    layers = {name: describe_layer(network.layers[name], found) for name, found in quantiles.items()}
    return {
        **trained.describe(),
        "inputs": network.describe(),
        "summary": summarize(layers),
        "layers_without_input": [name for name in network.layers if name not in layers],
        "layers": layers,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = tool_parser("boundary_iou", __doc__)
    add_run_options(parser)
    add_record_option(parser)
    add_image_options(parser)
    arguments = parser.parse_args(argv)
    try:
        entries = examine_all(arguments, examine)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for entry in entries:
        say(f"{entry['label']}: {_sentence(entry['summary'])}")
    picture = arguments.output.with_suffix(".png")
    write_figure(picture, draw_ious(entries), {"meaning": MEANING, "checkpoints": entries})


def _short(values: Tensor) -> list[float]:
    """Seven digits tell any two float32 numbers of a layer apart as far as anyone needs."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def _sentence(summary: dict[str, Any]) -> str:
    return (
        f"{summary['functions']} functions, IOU {summary['mean']:.3f} on average, median "
        f"{summary['quartile2']:.3f}, middle half {summary['quartile1']:.3f} to {summary['quartile3']:.3f}"
    )


if __name__ == "__main__":
    main()

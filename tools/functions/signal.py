"""Whether a run's PWLUs can learn: their gradients against noise, dead intervals, widths of the boundaries.

    python -m tools.functions.signal runs/r18_pwlu --output results/signal.json
    python -m tools.functions.signal runs/r18_pwlu --output signal.json --steps 100 --images 5000

Sends the validation images once through the network in evaluation mode and counts what falls into which
interval. Then takes the gradients of `--steps` global batches of training images, all at the same parameters,
and compares what they have in common with how they differ. Prints a table by layer, and writes it as a record
with a picture beside it.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from engine.processes.program import errors_told_by, to_path
from engine.records.console import say
from engine.training.step import seed_step
from pwlu import PWLU
from tools.drawing import color, finish, marker, name_layers, new_layer_figure
from tools.functions.inputs import Network, open_network
from tools.functions.signal_table import signal_table
from tools.functions.statistics import Histogram, Moments
from tools.functions.trained import add_image_options, open_all
from tools.records import add_record_option, tool_parser, write_figure

STEPS = 32
# A PWLU's parameters by what they are, and how the picture calls them.
PARTS = {"points": ("points",), "boundaries": ("left", "right"), "slopes": ("left_slope", "right_slope")}
TITLES = {"points": "heights of the points", "boundaries": "boundaries", "slopes": "outer slopes"}
MEANING = (
    "noise: standard deviation over steps of a parameter's gradient, root mean square over the layer; "
    "signal: that of the mean gradient, less what noise alone would leave in it (0 if that is all). width: "
    "distance of the boundaries over six standard deviations of the input, median over functions whose input "
    "varies; 1 after realignment. dead_intervals: share of intervals that no input fell into; outside: share "
    "of inputs beyond them all. "
    "layers_without_input: those that no image brought anything to; nothing is said of them"
)


def input_statistics(layer: PWLU, intervals: Histogram, moments: Moments) -> dict[str, float | None]:
    """Return width, dead_intervals and outside as MEANING says."""
    variance, _, _ = moments.covariances()
    distance, varies = (layer.right - layer.left).detach().double().cpu(), variance > 0
    widths = distance[varies] / (6 * variance[varies].sqrt())
    return {
        "width": widths.median().item() if len(widths) else None,
        "dead_intervals": (intervals.counts[:, 1:-1] == 0).double().mean().item(),
        "outside": intervals.outside(),
    }


def gradient_statistics(samples: Sequence[Tensor]) -> dict[str, float]:
    """Return signal and noise of gradients of the same parameters on two or more batches, as MEANING says."""
    stacked = torch.stack([sample.double() for sample in samples])
    noise = stacked.var(0).mean()
    signal = (stacked.mean(0).square().mean() - noise / len(samples)).clamp(min=0)
    return {"signal": signal.sqrt().item(), "noise": noise.sqrt().item()}


def examine(network: Network, steps: int) -> dict[str, Any]:
    """Return the record of one checkpoint, from the gradients of `steps` batches: by layer what MEANING says.

    Raises:
        ValueError: fewer than two steps, more than an epoch has, a checkpoint of phase I, float16.
    """
    trained = network.trained
    if trained.describe()["phase"] == 1:
        raise ValueError(f"{trained.label} has not left phase I, in which no PWLU learns; take a later one")
    most = network.task.data.steps_per_epoch(network.task.global_batch_size)
    if not 2 <= steps <= most:
        raise ValueError(
            f"--steps is {steps}, expected 2 (to tell noise from signal) to {most} (an epoch of this run)"
        )
    if network.task.precision.mode == "fp16":
        raise ValueError("runtime.amp is fp16, in which small gradients vanish; add --set runtime.amp=off")
    inputs = _inputs(network)
    gradients = _gradients(network, steps, epoch=trained.step)  # a number that no epoch of the run had
    layers = {
        name: {
            "functions": network.layers[name].num_parameters,
            **found,
            **{part: gradient_statistics(gradients[name, part]) for part in PARTS},
        }
        for name, found in inputs.items()
    }
    return {"steps": steps, **network.entry(layers)}


def _inputs(network: Network) -> dict[str, dict[str, float | None]]:
    intervals = {
        name: Histogram.between(layer.left, layer.right, layer.num_intervals)
        for name, layer in network.layers.items()
    }
    moments = {name: Moments() for name in network.layers}

    def observe(name: str, rows: Tensor) -> None:
        intervals[name].add(rows)
        moments[name].add(rows, rows)

    reached = network.watch(observe, list(network.layers), "inputs by interval")
    return {name: input_statistics(network.layers[name], intervals[name], moments[name]) for name in reached}


def _gradients(network: Network, steps: int, epoch: int) -> dict[tuple[str, str], list[Tensor]]:
    """Return each layer's gradients by part, one tensor per batch; the network is left in training mode."""
    task, model = network.task, network.model.train()
    found: dict[tuple[str, str], list[Tensor]] = {(n, part): [] for n in network.layers for part in PARTS}
    for number, step in enumerate(itertools.islice(task.batches(epoch, start_step=0), steps)):
        model.zero_grad()
        seed_step(epoch, number, rank=0)
        for micro_batch in step:
            loss = torch.stack(list(task.losses(model, micro_batch).values())).sum()
            (loss / len(step)).backward()
        for name, layer in network.layers.items():
            for part, parameters in PARTS.items():
                own = [layer.get_parameter(parameter) for parameter in parameters]
                gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
                found[name, part].append(torch.cat([gradient.flatten().cpu() for gradient in gradients]))
    return found


def draw_signal(entry: dict[str, Any]) -> Figure:
    """Return a panel per kind of parameter, signal and noise over the layers in the network's order.

    Where no signal rises above the noise its point is missing: the axis is logarithmic.
    """
    names = list(entry["layers"])
    figure = new_layer_figure(len(names), 6.4)
    panels = list(figure.subplots(len(TITLES), 1, sharex=True, sharey=True))
    for panel, (part, title) in zip(panels, TITLES.items(), strict=True):
        for number, kind in enumerate(("noise", "signal")):
            values = [entry["layers"][name][part][kind] or float("nan") for name in names]
            panel.plot(
                values, color=color(number), marker=marker(number), markersize=4, linewidth=1, label=kind
            )
        panel.set_yscale("log")
        panel.set_title(title, fontsize=9)
        finish(panel)
    panels[0].legend(fontsize=8, frameon=False)
    name_layers(panels[-1], names)
    figure.supylabel("gradient of one parameter (root mean square)", fontsize=9)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = tool_parser("functions.signal", __doc__)
    parser.add_argument("run", type=to_path, help="run folder (its last checkpoint), or a checkpoint file")
    add_record_option(parser)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"batches to take gradients of ({STEPS})")
    add_image_options(parser)
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        (trained,) = open_all([arguments.run], None, arguments.averaged)
        network = open_network(
            trained, split=arguments.split, images=arguments.images, overrides=arguments.set
        )
        entry = examine(network, arguments.steps)
        for line in signal_table(entry):
            say(line)
        picture = arguments.output.with_suffix(".png")
        write_figure(picture, draw_signal(entry), {"meaning": MEANING, **entry})


if __name__ == "__main__":
    main()

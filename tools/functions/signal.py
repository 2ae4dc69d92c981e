"""Whether a run's PWLUs learn: how far they moved from their start, and their gradients against noise.

    python -m tools.functions.signal runs/r18_pwlu --output results/signal.json
    python -m tools.functions.signal runs/r18_pwlu --output signal.json --steps 100 --images 5000

Sends the validation images once through the network in evaluation mode, counts what falls into which interval
and compares each PWLU's output with that of its starting function. Then takes the gradients of `--steps`
global batches of training images, all at the same parameters, and compares what they have in common with how
they differ. Prints a table by layer, and writes it as a record with a picture beside it.
"""

import copy
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
from tools.drawing import GREY, color, finish, marker, name_layers, new_layer_figure
from tools.functions.inputs import Network, apply, open_network
from tools.functions.signal_table import signal_table
from tools.functions.statistics import Histogram, Moments
from tools.functions.trained import add_image_options, open_all
from tools.records import add_record_option, tool_parser, write_figure

STEPS = 32
WHITE_NOISE = 6**0.5  # jagged of points that move each by itself
_ROUNDING = 1e-6  # of a function's largest height; a change below is none
MEANING = (
    "moved: root mean square, over a function's inputs, of its output less that of its starting function "
    "on the same boundaries, over the standard deviation of the inputs; of functions whose input varies. "
    "jagged: root mean square of the second differences of the points' change over that of the change, "
    "median over functions that changed: 0 is a line, a smooth change of 16 intervals is near 0.1, points "
    "that move each by itself are at 2.4. "
    "noise: standard deviation over steps of a point's gradient, root mean square over the layer; "
    "signal: that of the mean gradient, less what noise alone would leave in it (0 if that is all). width: "
    "distance of the boundaries over six standard deviations of the input, median over functions whose input "
    "varies; 1 after realignment. dead_intervals: share of intervals that no input fell into; outside: share "
    "of inputs beyond them all. "
    "layers_without_input: those that no image brought anything to; nothing is said of them"
)


class LayerInputs:
    """What `layer` gets, batch by batch, and how far from its starting function that puts its outputs."""

    def __init__(self, layer: PWLU) -> None:
        self._layer = layer
        self._start = at_start(layer)
        self._intervals = Histogram.between(layer.left, layer.right, layer.num_intervals)
        self._moments = Moments()
        self._squares = torch.zeros(layer.num_parameters, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take finite inputs, (functions, elements)."""
        self._intervals.add(rows)
        self._moments.add(rows, rows)
        moved = apply(self._layer, rows) - apply(self._start, rows)
        self._squares += moved.square().sum(1, dtype=torch.float64).cpu()

    def summary(self) -> dict[str, float | None]:
        """Return moved_median, moved_largest, width, dead_intervals and outside as MEANING says."""
        counts = self._intervals.counts.cpu()
        variance, _, _ = self._moments.covariances()
        varies = variance > 0
        spread = variance[varies].sqrt()
        moved = (self._squares / counts.sum(1))[varies].sqrt() / spread
        distance = (self._layer.right - self._layer.left).detach().double().cpu()
        widths = distance[varies] / (6 * spread)
        return {
            "moved_median": moved.median().item() if len(moved) else None,
            "moved_largest": moved.max().item() if len(moved) else None,
            "width": widths.median().item() if len(widths) else None,
            "dead_intervals": (counts[:, 1:-1] == 0).double().mean().item(),
            "outside": self._intervals.outside(),
        }


def at_start(layer: PWLU) -> PWLU:
    """Return a PWLU that is the starting function of `layer` on its present boundaries (Eq. 6)."""
    # Not `layer.start`: what lies between the points would count as learned, in a network that never learned.
    start = copy.deepcopy(layer)
    start.reset_to_start(layer.left.detach(), layer.right.detach())
    return start


def jaggedness(layer: PWLU) -> float | None:
    """Return jagged as MEANING says; None where no function has changed, or has a single interval."""
    points = layer.points.detach().double().cpu()
    change = points - at_start(layer).points.detach().double().cpu()
    size = change.square().mean(1).sqrt()
    changed = size > _ROUNDING * points.abs().amax(1)
    if layer.num_intervals < 2 or not changed.any():
        return None
    second = change.diff(n=2).square().mean(1).sqrt()
    return (second[changed] / size[changed]).median().item()


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
            "jagged": jaggedness(network.layers[name]),
            **gradient_statistics(gradients[name]),
        }
        for name, found in inputs.items()
    }
    return {"steps": steps, **network.entry(layers)}


def _inputs(network: Network) -> dict[str, dict[str, float | None]]:
    inputs = {name: LayerInputs(layer) for name, layer in network.layers.items()}
    reached = network.watch(lambda name, rows: inputs[name].add(rows), list(inputs), "inputs and outputs")
    return {name: inputs[name].summary() for name in reached}


def _gradients(network: Network, steps: int, epoch: int) -> dict[str, list[Tensor]]:
    """Return the gradients of each layer's points, a tensor per batch; leave the network in training mode."""
    task, model = network.task, network.model.train()
    found: dict[str, list[Tensor]] = {name: [] for name in network.layers}
    for number, step in enumerate(itertools.islice(task.batches(epoch, start_step=0), steps)):
        model.zero_grad()
        seed_step(epoch, number, rank=0)
        for micro_batch in step:
            loss = torch.stack(list(task.losses(model, micro_batch).values())).sum()
            (loss / len(step)).backward()
        for name, layer in network.layers.items():
            gradient = layer.points.grad
            found[name].append((torch.zeros_like(layer.points) if gradient is None else gradient).cpu())
    return found


def draw_signal(entry: dict[str, Any]) -> Figure:
    """Return panels over the layers in the network's order: gradients, how far they moved, how jagged.

    Where no signal rises above the noise, or nothing moved, the point is missing: those axes are logarithmic.
    """
    names = list(entry["layers"])
    figure = new_layer_figure(len(names), 6.4)
    panels = list(figure.subplots(3, 1, sharex=True))
    kinds = (
        ("gradient of one point", {"noise": "noise", "signal": "signal"}),
        (
            "moved from the start\n(in spreads of the input)",
            {"moved_largest": "largest", "moved_median": "median"},
        ),
        ("jagged", {"jagged": "median"}),
    )
    for panel, (title, lines) in zip(panels, kinds, strict=True):
        for number, (key, label) in enumerate(lines.items()):
            values = [entry["layers"][name][key] or float("nan") for name in names]
            panel.plot(
                values, color=color(number), marker=marker(number), markersize=4, linewidth=1, label=label
            )
        panel.set_ylabel(title, fontsize=9)
        finish(panel)
    for panel in panels[:2]:
        panel.set_yscale("log")
        panel.legend(fontsize=8, frameon=False)
    panels[2].axhline(WHITE_NOISE, color=GREY, linestyle="--", linewidth=0.8)
    panels[2].set_ylim(bottom=0)
    name_layers(panels[2], names)
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

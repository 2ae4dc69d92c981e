"""Draw learned PWLUs as in the paper's Figure 7: a page per model, boundaries marked, inputs underneath.

    python -m tools.functions.plot runs/digits_r18_pwlu --output results/curves
    python -m tools.functions.plot runs/mbv3_pwlu runs/r18_pwlu --output results/curves --images 5000
    python -m tools.functions.plot runs/r18_pwlu --output results/curves --layers layer1.0.act1 --all-channels
    python -m tools.functions.plot runs/mask_rcnn_r50_pwlu --output results/curves --images 500
    python -m tools.functions.plot runs/r18_pwlu --output results/curves --evolution

Writes OUTPUT/<run>.png and beside it OUTPUT/<run>.json, which holds what is drawn and where it comes from.
The inputs are collected by sending validation images through the network once; a detector's PWLU counts what
it gets on all levels of the pyramid and in all regions. `--evolution` draws how the functions changed, from
the run's log of them (curves.jsonl), in which training writes five functions of every layer whenever it draws
its curves; it goes to OUTPUT/<run>_evolution.png and .json.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from engine.processes.program import errors_told_by
from engine.records.curves import FUNCTIONS_PER_LAYER, MAX_LAYERS, spread
from engine.records.functions_log import LoggedFunctions, read_functions
from engine.records.learned_functions import LayerFunctions
from pwlu.suggestion import did_you_mean
from tools.functions.inputs import open_network
from tools.functions.page import draw_evolution, draw_page, panel_histogram
from tools.functions.statistics import Histogram
from tools.functions.trained import Trained, add_image_options, add_run_options, open_all, pwlu_layers_of
from tools.records import positive, to_output_folder, tool_parser, write_figure

Functions = dict[str, list[int]]  # channels by layer
ALL_LAYERS = ["all"]
MOST_STEPS = 8  # more lines in a panel cannot be told apart


def choose_functions(
    layers: Mapping[str, LayerFunctions], names: Sequence[str] | None, at_most: int | None
) -> Functions:
    """Return which functions of which layers to draw.

    Args:
        names: of the layers; ["all"], or None for eight spread over the network's depth.
        at_most: functions per layer, spread over its channels; None for all.

    Raises:
        ValueError: there is no layer of a name, or the run logged too few functions of a layer.
    """
    known = list(layers)
    if names is None:
        names = [known[number] for number in spread(len(known), MAX_LAYERS)]
    elif names == ALL_LAYERS:
        names = known
    functions = {}
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(f"--layers: no PWLU is called {name!r}; there are {', '.join(known)}{near}")
        channels, total = list(layers[name].functions), layers[name].total
        wanted = min(at_most or total, total)
        if wanted > len(channels):
            raise ValueError(
                f"--evolution: {wanted} functions of {name!r} were asked for, but the run logged "
                f"{len(channels)} of its {total}; expected --functions {len(channels)} or less"
            )
        functions[name] = [channels[number] for number in spread(len(channels), wanted)]
    return functions


def choose_steps(logged: Sequence[LoggedFunctions], realigned: int) -> list[LoggedFunctions]:
    """Return up to eight, evenly spread, the one after step `realigned` among them if it was logged."""
    chosen = spread(len(logged), MOST_STEPS)
    for number, entry in enumerate(logged):
        if entry.step == realigned and number not in chosen:
            nearest = min(chosen[1:-1], key=lambda other: abs(other - number))
            chosen[chosen.index(nearest)] = number
    return [logged[number] for number in chosen]


def logged_functions(trained: Trained) -> list[LoggedFunctions]:
    """Return what the run of a checkpoint has logged of its functions, by ascending step.

    Raises:
        ValueError: the run has no PWLU, no log, or one of less than two steps; or averaged weights are meant.
    """
    path = trained.folder.functions
    if trained.averaged:
        raise ValueError(
            f"--evolution: {path} holds functions of each step's own weights; leave --averaged out"
        )
    if not path.exists():
        pwlu_layers_of(trained)  # to say so if there is none
        raise ValueError(
            f"--evolution: {path} is missing, the log of the run's functions; expected a checkpoint in the "
            "folder of its run"
        )
    logged = read_functions(path)
    if len(logged) < 2:
        raise ValueError(
            f"--evolution: {path} has functions after {len(logged)} step(s), expected 2 or more; try again "
            "when the run has drawn its curves once more (runtime.plot_every_epochs, or plot_every_steps)"
        )
    return logged


def page(
    trained: Trained,
    *,
    names: Sequence[str] | None = None,
    at_most: int | None = FUNCTIONS_PER_LAYER,
    with_inputs: bool = True,
    split: str = "val",
    images: int | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Figure, dict[str, Any]]:
    """Return the page of one checkpoint, and its record.

    `names` and `at_most` as in `choose_functions`, the others as in `open_network`; so are errors.
    """
    layers = {
        name: LayerFunctions.of(layer, range(layer.num_parameters))
        for name, layer in pwlu_layers_of(trained).items()
    }
    functions = choose_functions(layers, names, at_most)
    histograms: dict[str, Histogram] = {}
    inputs = None
    if with_inputs:
        network = open_network(trained, split=split, images=images, overrides=overrides)
        histograms = {name: panel_histogram(layers[name], chosen) for name, chosen in functions.items()}

        def count(name: str, rows: Tensor) -> None:
            histograms[name].add(rows[functions[name]])

        network.watch(count, list(histograms), "input histograms")
        inputs = network.describe()
    figure = draw_page(layers, functions, histograms, f"{trained.label}, step {trained.step}")
    drawn = _drawn(layers, functions)
    for name, histogram in histograms.items():
        low, high = histogram.edges[0, [0, -1]].tolist()
        drawn[name]["inputs"] = {"low": low, "high": high, "counts": histogram.counts.tolist()}
    return figure, {**trained.describe(), "inputs": inputs, "layers": drawn}


def evolution(
    trained: Trained, *, names: Sequence[str] | None = None, at_most: int | None = FUNCTIONS_PER_LAYER
) -> tuple[Figure, dict[str, Any]]:
    """Return the page of how a run's functions changed, from its log, and the page's record.

    `names`, `at_most` and errors as in `choose_functions` and `logged_functions`.
    """
    logged = logged_functions(trained)
    functions = choose_functions(logged[0].layers, names, at_most)
    realigned = trained.content["phases"]["phase1_steps"]
    steps = choose_steps(logged, realigned)
    shown = f"{len(steps)} of {len(logged)}" if len(steps) < len(logged) else f"all {len(logged)}"
    title = f"{trained.label}: learned functions after {shown} logged steps"
    labels = {
        f"{step.step} ({round(step.epoch, 2):g}{', realigned' * (0 < realigned == step.step)})": step.layers
        for step in steps
    }
    figure = draw_evolution(labels, functions, title)
    entries = [
        {"step": step.step, "epoch": step.epoch, "layers": _drawn(step.layers, functions)} for step in steps
    ]
    logged_steps = [step.step for step in logged]
    return figure, {"of": trained.describe(), "logged_steps": logged_steps, "steps": entries}


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    names, at_most = arguments.layers, None if arguments.all_channels else arguments.functions
    with errors_told_by(parser):
        if arguments.evolution and (arguments.images or arguments.set or arguments.split != "val"):
            raise ValueError("--evolution draws no inputs: leave --images, --split and --set out")
        for trained in open_all(arguments.runs, arguments.labels, arguments.averaged):
            name = trained.label.replace("/", "_")
            if arguments.evolution:
                drawn = evolution(trained, names=names, at_most=at_most)
                name += "_evolution"
            else:
                drawn = page(
                    trained,
                    names=names,
                    at_most=at_most,
                    with_inputs=not arguments.no_inputs,
                    split=arguments.split,
                    images=arguments.images,
                    overrides=arguments.set,
                )
            write_figure(arguments.output / f"{name}.png", *drawn)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser("functions.plot", __doc__)
    add_run_options(parser)
    add = parser.add_argument
    add("--output", required=True, type=to_output_folder, help="folder for pictures and records")
    layers = f"PWLUs to draw, or `all` ({MAX_LAYERS}, spread over the network)"
    add("--layers", nargs="+", metavar="NAME", help=layers)
    functions = f"functions per layer, spread over its channels ({FUNCTIONS_PER_LAYER})"
    add("--functions", type=positive, default=FUNCTIONS_PER_LAYER, metavar="N", help=functions)
    add("--all-channels", action="store_true", help="all functions of each layer")
    add("--no-inputs", action="store_true", help="leave the input histograms out")
    add("--evolution", action="store_true", help="how the functions changed, from the run's log of them")
    add_image_options(parser)
    return parser


def _drawn(layers: Mapping[str, LayerFunctions], functions: Functions) -> dict[str, dict[str, Any]]:
    drawn = {}
    for name, chosen in functions.items():
        x, y = zip(*(layers[name].functions[index].corners() for index in chosen), strict=True)
        drawn[name] = {
            "channels": chosen,
            "x": [one.tolist() for one in x],
            "y": [one.tolist() for one in y],
        }
    return drawn


if __name__ == "__main__":
    main()

"""Draw learned PWLUs as in the paper's Figure 7: a page per model, boundaries marked, inputs underneath.

    python -m tools.plot_pwlu runs/digits_r18_pwlu --output results/curves
    python -m tools.plot_pwlu runs/mbv3_pwlu runs/r18_pwlu --output results/curves --images 5000
    python -m tools.plot_pwlu runs/r18_pwlu --output results/curves --layers layer1.0.act1 --all-channels
    python -m tools.plot_pwlu runs/mask_rcnn_r50_pwlu --output results/curves --no-inputs
    python -m tools.plot_pwlu runs/r18_pwlu --output results/curves --evolution

Writes OUTPUT/<run>.png and beside it OUTPUT/<run>.json, which holds what is drawn and where it comes from.
The inputs are collected by sending validation images through a classifier once. `--evolution` draws the same
functions in all checkpoints that a run keeps, which is all that it keeps of their past: previous, last, best.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from engine.config_files import suggestion
from engine.curves import FUNCTIONS_PER_LAYER, MAX_LAYERS, function_vertices, render, spread
from engine.files import write_text_atomically
from engine.manifest import describe_code
from engine.progress import say
from engine.record import write_picture
from pwlu import PWLU
from tools.input_histograms import InputHistogram, input_histograms
from tools.pwlu_page import draw_evolution, draw_page, panel_range
from tools.site_inputs import open_network
from tools.trained import Trained, add_image_options, open_all, open_trained, pwlu_layers_of

Functions = dict[str, list[int]]
ALL_LAYERS = ["all"]


def choose_functions(
    layers: Mapping[str, PWLU], names: Sequence[str] | None, at_most: int | None
) -> Functions:
    """Return which functions of which layers to draw.

    Args:
        names: of the layers; ["all"], or None for eight spread over the network's depth.
        at_most: functions per layer, spread over its channels; None for all.

    Raises:
        ValueError: there is no layer of a name.
    """
    known = list(layers)
    if names is None:
        names = [known[number] for number in spread(len(known), MAX_LAYERS)]
    elif names == ALL_LAYERS:
        names = known
    for name in names:
        if name not in layers:
            raise ValueError(
                f"--layers: no PWLU is called {name!r}; there are {', '.join(known)}{suggestion(name, known)}"
            )
    counts = {name: layers[name].num_parameters for name in names}
    return {name: spread(count, at_most or count) for name, count in counts.items()}


def kept_checkpoints(trained: Trained) -> dict[int, Trained]:
    """Return the checkpoints that a run keeps by step, ascending; of one step the last.

    Raises:
        ValueError: they are all of one step.
    """
    found = [
        open_trained(path, label=trained.label, averaged=trained.averaged)
        for path in sorted(trained.path.parent.glob("*.pt"))
    ]
    by_step = {other.step: other for other in sorted(found, key=lambda other: other.step)}
    if len(by_step) < 2:
        raise ValueError(
            f"--evolution: {trained.path.parent} keeps checkpoints of step {trained.step} only, and a run "
            "records its functions nowhere else as numbers; its TensorBoard has pictures of them"
        )
    return by_step


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

    `names` and `at_most` as in `choose_functions`; `split`, `images` and `overrides` say which inputs, as in
    `tools.site_inputs.open_network`. Errors are theirs.
    """
    layers = pwlu_layers_of(trained)
    functions = choose_functions(layers, names, at_most)
    histograms: dict[str, InputHistogram] = {}
    inputs = None
    if with_inputs:
        network = open_network(trained, split=split, images=images, overrides=overrides)
        ranges = {name: panel_range(layers[name], chosen) for name, chosen in functions.items()}
        histograms = input_histograms(network, functions, ranges)
        inputs = network.describe()
    figure = draw_page(layers, functions, histograms, f"{trained.label}, step {trained.step}")
    drawn = _drawn(layers, functions)
    for name, histogram in histograms.items():
        drawn[name]["inputs"] = histogram.describe()
    return figure, {**trained.describe(), "inputs": inputs, "layers": drawn}


def evolution(
    trained: Trained, *, names: Sequence[str] | None = None, at_most: int | None = FUNCTIONS_PER_LAYER
) -> tuple[Figure, dict[str, Any]]:
    """Return the page of how a run's functions changed between its checkpoints, and its record."""
    kept = kept_checkpoints(trained)
    steps = {step: pwlu_layers_of(other) for step, other in kept.items()}
    functions = choose_functions(steps[max(steps)], names, at_most)
    say(
        f"{trained.label}: checkpoints of steps {', '.join(map(str, steps))}; the run's records do not hold "
        "its functions, so there is nothing to draw between them"
    )
    entries = [
        {**kept[step].describe(), "layers": _drawn(layers, functions)} for step, layers in steps.items()
    ]
    return draw_evolution(steps, functions, trained.label), {"steps": entries}


def write_page(folder: Path, name: str, figure: Figure, record: Mapping[str, Any]) -> None:
    """Write NAME.png and NAME.json, and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name.replace("/", "_")
    write_picture(path.with_name(path.name + ".png"), render(figure))
    text = json.dumps({"code": describe_code(Path(__file__).parent), **record})
    write_text_atomically(path.with_name(path.name + ".json"), text + "\n")
    say(f"picture: {path}.png\nrecord: {path}.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    which = {
        "names": arguments.layers,
        "at_most": None if arguments.all_channels else arguments.functions,
    }
    seen = {"split": arguments.split, "images": arguments.images, "overrides": arguments.set}
    try:
        if arguments.functions < 2:
            raise ValueError(f"--functions is {arguments.functions}, expected 2 or more")
        for trained in open_all(arguments.runs, arguments.labels, arguments.averaged):
            if arguments.evolution:
                write_page(arguments.output, f"{trained.label}_evolution", *evolution(trained, **which))
            else:
                drawn = page(trained, **which, with_inputs=not arguments.no_inputs, **seen)
                write_page(arguments.output, trained.label, *drawn)
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run folders (their last checkpoint), or checkpoint files"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for pictures and records")
    parser.add_argument("--labels", nargs="+", help="names for titles and files (the folders' names)")
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help=f"PWLUs to draw, or `all` ({MAX_LAYERS}, spread over the network)",
    )
    parser.add_argument(
        "--functions",
        type=int,
        default=FUNCTIONS_PER_LAYER,
        metavar="N",
        help=f"functions per layer, spread over its channels ({FUNCTIONS_PER_LAYER})",
    )
    parser.add_argument("--all-channels", action="store_true", help="all functions of each layer")
    parser.add_argument("--no-inputs", action="store_true", help="leave the input histograms out")
    parser.add_argument(
        "--evolution", action="store_true", help="draw how functions changed between the run's checkpoints"
    )
    add_image_options(parser)
    return parser


def _drawn(layers: Mapping[str, PWLU], functions: Functions) -> dict[str, dict[str, Any]]:
    """Return the corners of the functions that a figure shows, a list per function."""
    corners = {
        name: [function_vertices(layers[name], index) for index in chosen]
        for name, chosen in functions.items()
    }
    return {
        name: {
            "channels": functions[name],
            "x": [x.tolist() for x, _ in found],
            "y": [y.tolist() for _, y in found],
        }
        for name, found in corners.items()
    }


if __name__ == "__main__":
    main()

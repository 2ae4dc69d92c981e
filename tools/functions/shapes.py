"""What learned PWLUs look like, counted: V-shapes and straight lines, as section 4.7 says of Figure 7.

    python -m tools.functions.shapes runs/r18_pwlu --output results/figures/full_shapes.json
    python -m tools.functions.shapes runs/r18_seed0 runs/r18_seed1 --output shapes.json --images 5000

Sends the validation images through each network in evaluation mode. Whether a function is a V is
judged where its inputs are, between their 5th and 95th percentile; how straight it is, over all of them.
Writes a record with every function's numbers and, beside it, a picture with a point per layer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from engine.records.console import say
from pwlu import PWLU
from tools.drawing import color, finish, marker, name_layers, new_layer_figure
from tools.functions.inputs import Network, apply, examine_all
from tools.functions.statistics import Moments, Quantiles
from tools.records import tool_parser, write_figure

_NETWORK_IN = 4.8  # height of a network's two panels
BENT = ("v_shaped", "inverted_v_shaped", "wavy")
BEND = 0.1  # of a function's range of values: what it must rise on both sides of its minimum to be a V
MEANING = (
    "line: squared correlation of a function's output with its input, over all inputs; relu_line: of ReLU's "
    "output on the same inputs; both 1 where input or output does not vary. left_rise, right_rise: between "
    "the 5th and the 95th percentile of the inputs, output at either end minus the smallest, over largest "
    f"minus smallest; a V rises by {BEND:g} or more on both sides. left_fall, right_fall: largest output "
    "minus that at either end, alike; an inverted V falls on both sides, a wavy function does both and is "
    "counted as that alone. layers_without_input: those that no image brought anything to"
)


def rises(layer: PWLU, low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """Return how far each of C functions rises and falls towards both ends of [low, high], over its range.

    `low` and `high` are (C,). All are 0 for a constant.
    """
    # A piecewise linear function has its extremes at its corners or at the ends.
    steps = torch.linspace(0, 1, layer.num_intervals + 1, dtype=torch.float64)[:, None]
    left, right = layer.left.detach().double().cpu(), layer.right.detach().double().cpu()
    corners = left + steps * (right - left)
    places = torch.cat([corners, low[None], high[None]]).clamp(low, high)  # (N + 3, C)
    values = apply(layer, places.T).T.double().cpu()
    smallest, largest = values.amin(0), values.amax(0)
    extent = (largest - smallest).clamp(min=torch.finfo(torch.float64).tiny)
    return {
        "left_rise": (values[-2] - smallest) / extent,
        "right_rise": (values[-1] - smallest) / extent,
        "left_fall": (largest - values[-2]) / extent,
        "right_fall": (largest - values[-1]) / extent,
    }


def examine(network: Network) -> dict[str, Any]:
    """Return the entry of the record for one checkpoint."""
    inputs = {name: Quantiles(layer.num_parameters) for name, layer in network.layers.items()}
    fits = {name: {"line": Moments(), "relu_line": Moments()} for name in network.layers}

    def observe(name: str, rows: Tensor) -> None:
        inputs[name].add(rows)
        fits[name]["relu_line"].add(rows, rows.clamp(min=0))
        fits[name]["line"].add(rows, apply(network.layers[name], rows))

    layers: dict[str, Any] = {}
    for name in network.watch(observe, list(network.layers), "percentiles and straightness"):
        low, high = (inputs[name].at(fraction).double() for fraction in (0.05, 0.95))
        lists = {key: fit.explained() for key, fit in fits[name].items()}
        lists |= rises(network.layers[name], low, high)
        layers[name] = {key: [round(value, 5) for value in values.tolist()] for key, values in lists.items()}
        layers[name]["summary"] = summarize(layers[name])
    return network.entry(layers)


def summarize(layer: dict[str, list[float]]) -> dict[str, float | int]:
    """Return how many of a layer's functions are Vs or inverted Vs, and medians of the straightness."""
    ends = {key: torch.tensor(values) for key, values in layer.items()}
    upright = torch.minimum(ends["left_rise"], ends["right_rise"]) >= BEND
    inverted = torch.minimum(ends["left_fall"], ends["right_fall"]) >= BEND
    return {
        "functions": len(upright),
        "v_shaped": int((upright & ~inverted).sum()),
        "inverted_v_shaped": int((inverted & ~upright).sum()),
        "wavy": int((upright & inverted).sum()),
        "median_line": round(ends["line"].median().item(), 4),
        "median_relu_line": round(ends["relu_line"].median().item(), 4),
    }


def draw_shapes(entries: Sequence[dict[str, Any]]) -> Figure:
    """Return two panels over the layers of each network, with a line per entry of the record.

    The upper has the share of functions that are Vs, inverted Vs or wavy, the lower the median of what a
    straight line explains; dashed, of ReLU on the same inputs.
    """
    networks: dict[tuple[str, ...], list[int]] = {}
    for number, entry in enumerate(entries):
        networks.setdefault(tuple(entry["layers"]), []).append(number)
    figure = new_layer_figure(max(map(len, networks)), _NETWORK_IN * len(networks))
    panels = figure.subplots(2 * len(networks), 1)
    for row, (names, numbers) in enumerate(networks.items()):
        entries_of = {number: entries[number] for number in numbers}
        _draw_network(panels[2 * row], panels[2 * row + 1], names, entries_of)
    return figure


def _draw_network(
    upper: Axes, lower: Axes, names: Sequence[str], entries: Mapping[int, dict[str, Any]]
) -> None:
    for number, entry in entries.items():
        found = [entry["layers"][name]["summary"] for name in names]
        bent = [100 * sum(one[kind] for kind in BENT) / one["functions"] for one in found]
        lines, relu_lines = ([one[key] for one in found] for key in ("median_line", "median_relu_line"))
        solid: dict[str, Any] = {"color": color(number), "marker": marker(number), "markersize": 4}
        upper.plot(bent, label=entry["label"], linewidth=1.2, **solid)
        lower.plot(lines, linewidth=1.2, **solid)
        lower.plot(relu_lines, color=color(number), linestyle="--", linewidth=0.8)
    upper.set_ylabel("V, inverted V or wavy (%)", fontsize=9)
    lower.set_ylabel("explained by a line\n(median; dashed: of ReLU)", fontsize=9)
    upper.set_ylim(bottom=0)
    lower.set_ylim(top=1.02)
    name_layers(upper, [""] * len(names))
    name_layers(lower, names)
    for panel in (upper, lower):
        finish(panel)
    upper.legend(fontsize=8, frameon=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    entries, picture = examine_all(tool_parser("functions.shapes", __doc__), argv, examine)
    for entry in entries:
        for name, layer in entry["layers"].items():
            one = layer["summary"]
            say(
                f"{entry['label']}: {name}: {one['functions']} functions, {one['v_shaped']} V, "
                f"{one['inverted_v_shaped']} inverted V, {one['wavy']} wavy; a line explains "
                f"{one['median_line']:.3f} (median), of ReLU {one['median_relu_line']:.3f}"
            )
    write_figure(picture, draw_shapes(entries), {"meaning": MEANING, "checkpoints": entries})


if __name__ == "__main__":
    main()

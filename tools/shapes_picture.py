"""The picture of tools.learned_shapes: how many functions of each layer are Vs, and how straight they are."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.figure_parts import color, finish, marker, name_layers, new_layer_figure


def draw_shapes(entries: Sequence[dict[str, Any]]) -> Figure:
    """Return two panels over the layers, in the network's order, with a line per entry of the record.

    The upper has the share of functions that are Vs, inverted Vs or wavy, the lower the median of what a
    straight line explains; dashed, of ReLU on the same inputs.
    """
    names = list(dict.fromkeys(name for entry in entries for name in entry["layers"]))
    figure = new_layer_figure(len(names), 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for number, entry in enumerate(entries):
        found = {name: layer["summary"] for name, layer in entry["layers"].items()}
        _line(upper, names, {name: _bent(one) for name, one in found.items()}, number, entry["label"])
        _line(lower, names, {name: one["median_line"] for name, one in found.items()}, number)
        _line(
            lower, names, {name: one["median_relu_line"] for name, one in found.items()}, number, dashed=True
        )
    upper.set_ylabel("V, inverted V or wavy (%)", fontsize=9)
    lower.set_ylabel("explained by a line\n(median; dashed: of ReLU)", fontsize=9)
    upper.set_ylim(bottom=0)
    lower.set_ylim(top=1.02)
    name_layers(lower, names)
    for panel in (upper, lower):
        finish(panel)
    upper.legend(fontsize=8, frameon=False)
    return figure


def _bent(summary: dict[str, Any]) -> float:
    bent = sum(summary[kind] for kind in ("v_shaped", "inverted_v_shaped", "wavy"))
    return 100 * bent / float(summary["functions"])


def _line(
    panel: Axes,
    names: Sequence[str],
    values: dict[str, float],
    number: int,
    label: str | None = None,
    *,
    dashed: bool = False,
) -> None:
    xs = [place for place, name in enumerate(names) if name in values]
    style: dict[str, Any] = (
        {"linestyle": "--", "linewidth": 0.8} if dashed else {"marker": marker(number), "linewidth": 1.2}
    )
    panel.plot(xs, [values[names[x]] for x in xs], color=color(number), label=label, markersize=4, **style)

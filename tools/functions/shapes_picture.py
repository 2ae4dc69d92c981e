"""The picture of tools.functions.shapes: how many functions of each layer are Vs, and how straight they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.drawing import color, finish, marker, name_layers, new_layer_figure

_NETWORK_IN = 4.8  # height of a network's two panels


def draw_shapes(entries: Sequence[dict[str, Any]]) -> Figure:
    """Return two panels over the layers of each network, in their order, with a line per entry of the record.

    The upper has the share of functions that are Vs, inverted Vs or wavy, the lower the median of what a
    straight line explains; dashed, of ReLU on the same inputs. Entries with the same layers share panels.
    """
    networks: dict[tuple[str, ...], list[int]] = {}
    for number, entry in enumerate(entries):
        networks.setdefault(tuple(entry["layers"]), []).append(number)
    figure = new_layer_figure(max(map(len, networks)), _NETWORK_IN * len(networks))
    panels = figure.subplots(2 * len(networks), 1)
    for row, (names, numbers) in enumerate(networks.items()):
        upper, lower = panels[2 * row], panels[2 * row + 1]
        _draw_network(upper, lower, names, {number: entries[number] for number in numbers})
    return figure


def _draw_network(
    upper: Axes, lower: Axes, names: Sequence[str], entries: Mapping[int, dict[str, Any]]
) -> None:
    """Draw the entries of one network, by their number, which gives colour and shape."""
    for number, entry in entries.items():
        found = [entry["layers"][name]["summary"] for name in names]
        _line(upper, [_bent(one) for one in found], number, entry["label"])
        _line(lower, [one["median_line"] for one in found], number)
        _line(lower, [one["median_relu_line"] for one in found], number, dashed=True)
    upper.set_ylabel("V, inverted V or wavy (%)", fontsize=9)
    lower.set_ylabel("explained by a line\n(median; dashed: of ReLU)", fontsize=9)
    upper.set_ylim(bottom=0)
    lower.set_ylim(top=1.02)
    name_layers(upper, [""] * len(names))
    name_layers(lower, names)
    for panel in (upper, lower):
        finish(panel)
    upper.legend(fontsize=8, frameon=False)


def _bent(summary: dict[str, Any]) -> float:
    bent = sum(summary[kind] for kind in ("v_shaped", "inverted_v_shaped", "wavy"))
    return 100 * bent / float(summary["functions"])


def _line(
    panel: Axes, values: Sequence[float], number: int, label: str | None = None, *, dashed: bool = False
) -> None:
    style: dict[str, Any] = (
        {"linestyle": "--", "linewidth": 0.8} if dashed else {"marker": marker(number), "linewidth": 1.2}
    )
    panel.plot(values, color=color(number), label=label, markersize=4, **style)

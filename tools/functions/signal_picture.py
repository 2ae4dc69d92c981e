"""The picture of tools.functions.signal: what gradients have in common over steps, and how they differ."""

from typing import Any

from matplotlib.figure import Figure

from tools.drawing import color, finish, marker, name_layers, new_layer_figure

TITLES = {"points": "heights of the points", "boundaries": "boundaries", "slopes": "outer slopes"}


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

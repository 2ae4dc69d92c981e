"""The table of a record of tools.functions.signal."""

from typing import Any


def signal_table(entry: dict[str, Any]) -> list[str]:
    """Return a record's layers as lines of a Markdown table."""
    heads = ("layer", "functions", "width", "dead intervals (%)", "outside (%)", "signal / noise of points")
    lines = [f"| {' | '.join(heads)} | of boundaries |", f"| --- |{' ---: |' * len(heads)}"]
    for name, layer in entry["layers"].items():
        width = "\N{EM DASH}" if layer["width"] is None else f"{layer['width']:.2f}"
        shares = [f"{100 * layer[key]:.1f}" for key in ("dead_intervals", "outside")]
        ratios = [
            f"{layer[part]['signal']:.1e} / {layer[part]['noise']:.1e}" for part in ("points", "boundaries")
        ]
        cells = [str(layer["functions"]), width, *shares, *ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines

"""The table of a record of tools.functions.signal."""

from typing import Any

from pwlu_ext.benchmarks.page import table as markdown_table


def signal_table(entry: dict[str, Any]) -> list[str]:
    """Return a record's layers as lines of a Markdown table."""
    heads = ["layer", "functions", "width", "dead intervals (%)", "outside (%)", "signal / noise of points"]
    rows = []
    for name, layer in entry["layers"].items():
        width = "\N{EM DASH}" if layer["width"] is None else f"{layer['width']:.2f}"
        shares = [f"{100 * layer[key]:.1f}" for key in ("dead_intervals", "outside")]
        parts = [layer[part] for part in ("points", "boundaries")]
        ratios = [f"{part['signal']:.1e} / {part['noise']:.1e}" for part in parts]
        rows.append([name, str(layer["functions"]), width, *shares, *ratios])
    return markdown_table([*heads, "of boundaries"], rows)

"""The table of a record of tools.functions.signal."""

from typing import Any

from pwlu_ext.benchmarks.page import table as markdown_table


def signal_table(entry: dict[str, Any]) -> list[str]:
    """Return a record's layers as lines of a Markdown table."""
    heads = ["layer", "functions", "moved, median", "largest", "jagged", "signal / noise", "width"]
    rows = []
    for name, layer in entry["layers"].items():
        moved = [_number(layer[key], ".2g") for key in ("moved_median", "moved_largest")]
        jagged, width = (_number(layer[key], ".2f") for key in ("jagged", "width"))
        gradients = f"{layer['signal']:.1e} / {layer['noise']:.1e}"
        shares = [f"{100 * layer[key]:.1f}" for key in ("dead_intervals", "outside")]
        rows.append([name, str(layer["functions"]), *moved, jagged, gradients, width, *shares])
    return markdown_table([*heads, "dead intervals (%)", "outside (%)"], rows)


def _number(value: float | None, digits: str) -> str:
    return "\N{EM DASH}" if value is None else format(value, digits)

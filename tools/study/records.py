"""What results/STUDY.md has beside the runs' accuracies: boundaries' IOUs, learned shapes, and what moved.

Each is made from the record that a tool left in results/figures, and left out where there is none.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pwlu_ext.benchmarks.page import table as markdown_table
from tools.functions.signal_table import signal_table
from tools.study.study import SCALE

FOLDER = "figures"
Lines = list[str]


def record_lines(results: Path) -> Lines:
    """Return the sections of all records that are there, in Markdown.

    Raises:
        ValueError: a file that is no record of its tool.
    """
    lines: Lines = []
    for kind, make in _SECTIONS.items():
        path = results / FOLDER / f"{SCALE}_study_{kind}.json"
        if path.exists():
            try:
                lines += make(json.loads(path.read_text("utf-8")), f"{FOLDER}/{path.stem}.png")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}: not the record that its name says: {error!r}; make it again"
                ) from error
            lines += discussion(results, kind)
    return lines


def discussion(results: Path, name: str) -> Lines:
    """Return what people wrote about a study or record in results/study, nothing if nobody did."""
    path = results / "study" / f"{name}.md"
    return [path.read_text("utf-8").strip(), ""] if path.exists() else []


def iou_lines(record: dict[str, Any], picture: str) -> Lines:
    """Return a section on how boundaries cover inputs, from a record of tools.functions.boundary_iou."""
    lines = [
        "## How boundaries cover their inputs (Fig. 6)",
        "",
        "IOU of the boundaries and the inputs' 5th and 95th percentiles (Eq. 7), over all functions.",
        "",
    ]
    rows = []
    for entry in record["checkpoints"]:
        found = entry["summary"]
        quartiles = f"{found['quartile1']:.3f} to {found['quartile3']:.3f}"
        middle, mean = (f"{found[key]:.3f}" for key in ("quartile2", "mean"))
        rows.append([entry["label"], str(found["functions"]), middle, quartiles, mean])
    table = markdown_table(["", "functions", "median", "quartiles", "mean"], rows)
    return [*lines, *table, "", f"![{picture}]({picture})", ""]


def shape_lines(record: dict[str, Any], picture: str) -> Lines:
    """Return a section on what the functions look like, from a record of tools.functions.shapes."""
    lines = [
        "## Learned shapes (Fig. 7)",
        "",
        '*The paper:* "V-shaped functions frequently appear", and "activations for the first layer are close '
        'to linear functions" (section 4.7).',
        "",
        "How many functions of a layer are Vs, inverted Vs, or wavy (both at once), judged between the 5th "
        "and the 95th percentile of their inputs: they rise, or fall, towards both ends by a tenth or more "
        "of their range there. *line*: what a straight line explains of the output's variance, over all "
        "inputs, median over the layer's functions; 1 is a line. *ReLU's line*: of ReLU on these inputs.",
        "",
    ]
    rows = []
    for entry in record["checkpoints"]:
        for name, layer in entry["layers"].items():
            one = layer["summary"]
            counts = [str(one[key]) for key in ("functions", "v_shaped", "inverted_v_shaped", "wavy")]
            straight = [f"{one[key]:.3f}" for key in ("median_line", "median_relu_line")]
            rows.append([f"{entry['label']}, {name}", *counts, *straight])
    heads = ["network, layer", "functions", "V", "inverted V", "wavy", "line", "ReLU's line"]
    return [*lines, *markdown_table(heads, rows), "", f"![{picture}]({picture})", ""]


def signal_lines(record: dict[str, Any], picture: str) -> Lines:
    """Return a section on what moved, gradients and inputs, from a record of tools.functions.signal."""
    return [
        "## How far functions moved from their start",
        "",
        f"{record['label']} at step {record['step']}, over {record['steps']} batches at the same parameters: "
        f"{record['meaning']}.",
        "",
        *signal_table(record),
        "",
        f"![{picture}]({picture})",
        "",
    ]


_SECTIONS: dict[str, Callable[[dict[str, Any], str], Lines]] = {
    "iou": iou_lines,
    "shapes": shape_lines,
    "signal": signal_lines,
}

"""README's table of the studies with three seeds, which goes with them."""

from pathlib import Path

from pwlu_ext.benchmarks.page import table as markdown_table
from tools.study.page import mean_of, told
from tools.study.study import CONFIDENCE, read_study


def superseded_table(results: Path) -> list[str]:
    """Return the activation functions side by side, a line per network, and PWLU − ReLU."""
    studies = [read_study(f"activations{network}", results) for network in ("", "_mbv3", "_effb0")]
    names = [cell.row for cell in studies[0].study.cells]
    rows = []
    for numbers in studies:
        cells = {cell.row: cell for cell in numbers.study.cells}
        difference = told(numbers.difference("top1", cells["PWLU"], cells["ReLU"]), "top1")
        n = str(len(numbers.values["top1"][cells["PWLU"].name]))
        each = [mean_of(numbers, "top1", cell) for cell in cells.values()]
        rows.append([cells["PWLU"].column, n, *each, difference])
    return markdown_table(["network", "n", *names, f"PWLU − ReLU ({CONFIDENCE:.0%} interval)"], rows)

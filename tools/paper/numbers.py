"""The paper's own numbers: every number of Tables 2 to 7, from results/paper.csv.

Labels are the paper's, made the same in all tables (Table 4 writes FReLU and MobileNetV3).
"""

import csv
from dataclasses import dataclass
from pathlib import Path

PAPER = Path(__file__).parents[2] / "results" / "paper.csv"
SHARED = "both"  # the column of a number that Tables 5 and 6 print once for both
COLUMNS = ("table", "row", "column", "metric", "value", "unit")


@dataclass(frozen=True)
class Place:
    """Where in a table a number stands: the labels of its row and its column, and what it measures."""

    row: str
    column: str
    metric: str  # top1, bbox_AP, segm_AP, as in a run's records; flops, parameters, inference_time


@dataclass(frozen=True)
class Quantity:
    """A number and its unit."""

    value: float
    unit: str  # %, ms, M or G: multiply-adds or parameters in millions, in billions


def read_paper(path: Path = PAPER) -> dict[int, dict[Place, Quantity]]:
    """Return the numbers by table and place. Raises ValueError for a missing or a broken file."""
    if not path.exists():
        raise ValueError(f"{path} is missing; it holds the paper's numbers and belongs to the repository")
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    numbers: dict[int, dict[Place, Quantity]] = {}
    for line_number, line in enumerate(lines, start=2):
        try:
            place = Place(line["row"], line["column"], line["metric"])
            quantity = Quantity(float(line["value"]), line["unit"])
            numbers.setdefault(int(line["table"]), {})[place] = quantity
        except ValueError as error:
            raise ValueError(f"{path}, line {line_number}: {error}") from error
    return numbers

"""A table of the paper with our numbers beside its own, and that table in Markdown."""

import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pwlu_ext.benchmarks.page import table as markdown_table
from tools.paper.grid import SCALES, PaperTable, load_table
from tools.paper.numbers import SHARED, Place, read_paper
from tools.tables.measurements import SHOWN, Measurement, csv_path, origins, read_measurements

_DATA = {"train_imagenet.py": "/datasets/imagenet", "train_coco.py": "/datasets/coco"}


@dataclass(frozen=True)
class Number:
    """A mean over `n` seeds in percent or percentage points; its standard deviation, None where unknown."""

    mean: float
    spread: float | None = None
    n: int = 1


@dataclass(frozen=True)
class TableNumbers:
    """A table's grid, our measurements at a scale, and the numbers by place, the paper's and ours."""

    grid: PaperTable
    scale: str
    measurements: list[Measurement]
    paper: dict[Place, Number]
    ours: dict[Place, Number]

    @property
    def dataset(self) -> str:
        return self.grid.scales[self.scale].dataset

    @property
    def how_to_run(self) -> str:
        data = "" if self.scale == "smoke" else f' SWEEP="data.root={_DATA[self.grid.program]}"'
        return f"Not run yet: `make table-{self.grid.key} SCALE={self.scale}{data}`."


def read_table(number: int, scale: str, results: Path) -> TableNumbers:
    """Read a table's numbers from what tools.collect wrote and results/paper.csv; ours may be none.

    Raises:
        ValueError: no such table, or a CSV that does not fit the grid.
    """
    grid, published = load_table(number), read_paper()[number]
    measurements = read_measurements(results, scale, grid)
    values: dict[Place, list[float]] = {}
    for one in measurements:
        if one.value is not None:
            values.setdefault(one.place, []).append(one.value)
    return TableNumbers(
        grid,
        scale,
        measurements,
        paper={place: Number(published[place].value) for place in grid.places},
        ours={place: _number(found) for place, found in values.items()},
    )


def _number(values: list[float]) -> Number:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Number(statistics.mean(values), spread, len(values))


def table_lines(numbers: TableNumbers) -> list[str]:
    """Return the table in Markdown, the paper's numbers and ours by turns, and what ours rest on."""
    grid = numbers.grid
    columns = dict.fromkeys((one.column, one.metric) for one in grid.places if one.column != SHARED)
    metrics = {metric for _, metric in columns}
    titles = ["" if len(metrics) > 1 else SHOWN[next(iter(metrics))]]
    for column, metric in columns:
        what = f"{column}, {SHOWN[metric]}" if len(metrics) > 1 else column
        titles += [f"{what}: paper", "ours"]
    rows = []
    diverged = Counter(one.place for one in numbers.measurements if one.value is None)
    for row in dict.fromkeys(cell.row for cell in grid.cells):
        cells = [row]
        for column, metric in columns:
            place = Place(row, column, metric)
            place = place if place in numbers.paper else Place(row, SHARED, metric)
            cells += [f"{numbers.paper[place].mean:.2f}", _ours(numbers.ours.get(place), diverged[place])]
        rows.append(cells)
    return [*markdown_table(titles, rows), "", *_origin(numbers)]


def _ours(number: Number | None, diverged: int) -> str:
    """Return `72.60 ± 0.10 (n = 3, 1 diverged)`."""
    lost = [f"{diverged} diverged"] * bool(diverged)
    if number is None:
        return "".join(lost)
    spread = "" if number.spread is None else f" ± {number.spread:.2f}"
    return f"{number.mean:.2f}{spread} ({', '.join([f'n = {number.n}', *lost])})"


def _origin(numbers: TableNumbers) -> list[str]:
    if not numbers.measurements:
        return [numbers.how_to_run]
    path = csv_path(Path(), numbers.scale, numbers.grid)
    filled, places = len(numbers.ours), len(numbers.grid.places)
    return [
        f"Ours: {SCALES[numbers.scale]}, {numbers.dataset}; {filled} of {places} numbers; every run with its "
        f"commit: {path}.",
        *origins(numbers.measurements),
    ]

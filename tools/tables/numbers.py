"""The numbers of one of the paper's tables at one scale: ours with where they came from, beside the paper's.

What the figures of tables share. Nothing is drawn here.
"""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.collect import Measurement, csv_path
from tools.paper.grid import Grid, load_grid
from tools.paper.numbers import Place, read_paper
from tools.tables.markdown import read_measurements, table_lines

DIGITS = 4  # after the point, of a mean in a record


@dataclass(frozen=True)
class Number:
    """A mean in percent or percentage points, and its standard deviation, None where that is unknown.

    `runs` are the measurements behind it, none for a number of the paper; those that diverged are not.
    """

    mean: float
    spread: float | None = None
    runs: tuple[Measurement, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the number and the runs it rests on as plain values."""
        kept = ("run", "seed", "value", "commit", "config_hash", "hardware", "versions", "date")
        runs = [{name: asdict(run)[name] for name in kept} for run in self.runs]
        spread = None if self.spread is None else round(self.spread, DIGITS)
        return {"mean": round(self.mean, DIGITS), "spread": spread, "runs": runs}


Numbers = Mapping[Place, Number]


@dataclass(frozen=True)
class TableNumbers:
    """A table's grid, our measurements at a scale, and both sides' numbers by place; ours may lack some."""

    grid: Grid
    scale: str
    measurements: list[Measurement]
    ours: dict[Place, Number]
    paper: dict[Place, Number]

    @property
    def places(self) -> list[Place]:
        """All places of the grid, in its order."""
        return [place for cell in self.grid.cells for place in cell.places]

    @property
    def diverged(self) -> Counter[Place]:
        """How many of our runs diverged, by place."""
        return Counter(one.place for one in self.measurements if one.value is None)

    @property
    def sides(self) -> dict[str, Numbers]:
        """The numbers of both sides by the title of their panels, the paper's first."""
        return {
            f"Paper: {self.grid.scales['full'].dataset}": self.paper,
            f"Ours, scale {self.scale}: {self.dataset}": self.ours,
        }

    @property
    def dataset(self) -> str:
        """The images that our runs were trained on."""
        return self.grid.scales[self.scale].dataset

    def markdown(self) -> str:
        """Return the table as results/README.md has it."""
        return "\n".join(table_lines(self.grid, self.scale, self.measurements))


def read_table(table: int, scale: str, results: Path) -> TableNumbers:
    """Read a table's numbers from results/<scale>_table<N>.csv and results/paper.csv.

    Raises:
        ValueError: no such table, nothing was collected, or a CSV that does not fit the grid.
    """
    grid, path = load_grid(table), csv_path(results, scale, table)
    measurements = read_measurements(path, grid, scale) if path.exists() else []
    if not measurements:
        what = f"--table {table} --scale {scale}"
        raise ValueError(
            f"{path} has no numbers: table {table} has not been run at scale {scale}. Run "
            f"python -m tools.sweep {what}, then python -m tools.collect {what}"
        )
    found: dict[Place, list[Measurement]] = {}
    for one in measurements:
        found.setdefault(one.place, []).append(one)
    published = read_paper()
    paper = {place: Number(published[place].value) for cell in grid.cells for place in cell.places}
    ours = {place: number for place, runs in found.items() if (number := _number(runs))}
    return TableNumbers(grid, scale, measurements, ours, paper)


def _number(runs: list[Measurement]) -> Number | None:
    """Return the number of a place, None if all its runs diverged."""
    values = {run: run.value for run in runs if run.value is not None}
    if not values:
        return None
    spread = statistics.stdev(values.values()) if len(values) > 1 else None
    return Number(statistics.mean(values.values()), spread, tuple(values))

"""A study's numbers at scale small: by cell and seed, and the differences to its reference cell."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from tools.paper.grid import Cell, Study, load_study
from tools.paper.numbers import SHARED
from tools.tables.measurements import Measurement, read_measurements

SCALE = "small"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of differences over the seeds that both sides have, and its interval by Student's t."""

    seeds: tuple[int, ...]
    mean: float
    low: float | None = None  # both None with fewer than two seeds
    high: float | None = None


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Return first minus second, each values by seed; None if they have no seed in common."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    mean = statistics.mean(differences)
    if len(seeds) < 2:
        return Difference(seeds, mean)
    standard_error = statistics.stdev(differences) / math.sqrt(len(seeds))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)) * standard_error
    return Difference(seeds, mean, mean - half, mean + half)


@dataclass(frozen=True)
class StudyNumbers:
    """A study's grid, its measurements, values by metric, cell and seed, and by cell the diverged seeds."""

    study: Study
    measurements: list[Measurement]
    values: dict[str, dict[str, dict[int, float]]]
    diverged: dict[str, list[int]]

    def difference(self, metric: str, cell: Cell, other: Cell | None) -> Difference | None:
        """Return a cell's difference to another; None without one, or before a seed of both is in."""
        of_cells = self.values[metric]
        return None if other is None else paired_difference(of_cells[cell.name], of_cells[other.name])

    def to_reference(self, metric: str, cell: Cell) -> Difference | None:
        return self.difference(metric, cell, self.study.reference_of(cell))

    def label(self, cell: Cell) -> str:
        """Return a cell's name for readers: its row, and its column if the study has several."""
        several = len({other.column for other in self.study.cells}) > 1
        return f"{cell.row}, {cell.column}" if several and cell.column != SHARED else cell.row

    @property
    def compared_with(self) -> str:
        references = filter(None, map(self.study.reference_of, self.study.cells))
        cells = {cell.name: cell for cell in references}
        if len(cells) == 1:
            return cells.popitem()[1].row
        (row,) = {cell.row for cell in cells.values()}
        return f"{row} of the same column"


def read_study(name: str, results: Path) -> StudyNumbers:
    """Read a study and what tools.collect wrote of it, perhaps nothing. Raises ValueError as they do."""
    study = load_study(name)
    measurements = read_measurements(results, SCALE, study)
    names = {(cell.row, cell.column): cell.name for cell in study.cells}
    values: dict[str, dict[str, dict[int, float]]] = {
        metric: {cell: {} for cell in names.values()} for metric in study.cells[0].metrics
    }
    diverged: dict[str, list[int]] = {cell: [] for cell in names.values()}
    for one in measurements:
        cell = names[one.row, one.column]
        if one.value is not None:
            values[one.metric][cell][one.seed] = one.value
        elif one.seed not in diverged[cell]:
            diverged[cell].append(one.seed)
    return StudyNumbers(study, measurements, values, diverged)

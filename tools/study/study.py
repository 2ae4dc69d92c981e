"""A study: what it asks, and its runs at scale small compared seed by seed.

Its grid, configs/sweeps/study_<name>.yaml, lists `comparisons`, `<side> over <side>`: the differences that
are tested, one family per study. A side is a cell, or `<cell> minus <cell>`, so that differences can be
compared too. The discussion, if there is one, is results/study/<name>.md, which people write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.collect import Measurement, csv_path
from tools.paper.grid import Cell, Grid, load_grid
from tools.paper.numbers import SHARED
from tools.study.paired import Paired, compare_paired, holm
from tools.tables.markdown import read_measurements

SCALE = "small"
LEVEL = 0.05  # of the corrected p below which a difference counts as told apart
_OVER, _MINUS = " over ", " minus "
Values = Mapping[str, Mapping[int, float]]  # top-1 in percent by the cell's name and the seed
Diverged = Mapping[str, frozenset[int]]  # by the cell's name the seeds whose training diverged


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its words, and of the declared seeds its values and those that diverged."""

    label: str
    values: Mapping[int, float]
    diverged: frozenset[int]


@dataclass(frozen=True)
class Comparison:
    """First minus second over the seeds that the grid declares; None before both have one in common.

    `awaited` are the declared seeds that a side has not run. `p_holm` is corrected within the study, None as
    long as there is nothing to conclude: a seed is awaited, one diverged, or the test has nothing to go by.
    """

    first: Side
    second: Side
    paired: Paired | None
    awaited: tuple[int, ...]
    p_holm: float | None = None

    @property
    def p(self) -> float | None:
        """The p-value to conclude from: none before all seeds are in, lest a lucky first one decide.

        Nor where a run diverged, as the seeds that are left are no fair sample.
        """
        incomplete = self.awaited or self.first.diverged or self.second.diverged
        return None if incomplete or self.paired is None else self.paired.p

    @property
    def verdict(self) -> str:
        """What the test says, corrected, or why it says nothing."""
        if self.awaited:
            seeds = "seed" if len(self.awaited) == 1 else "seeds"
            return f"awaits {seeds} {', '.join(map(str, self.awaited))}"
        lost = [name for name in ("first", "second") if getattr(self, name).diverged]
        if lost:
            return f"a run of the {' and the '.join(lost)} diverged"
        if self.paired is None or self.p_holm is None:
            return "not tested"
        if self.p_holm >= LEVEL:
            return "not told apart"
        return "higher" if self.paired.mean > 0 else "lower"


@dataclass(frozen=True)
class Study:
    """A study's grid and numbers."""

    name: str
    grid: Grid
    measurements: Sequence[Measurement]
    values: Values
    diverged: Diverged
    comparisons: Sequence[Comparison]
    discussion: str

    @property
    def seeds(self) -> list[int]:
        """All seeds that any cell has a run of."""
        return sorted({one.seed for one in self.measurements})


def label(cell: Cell, grid: Grid) -> str:
    """Return a cell's name for readers: its row, and its column if it is of one and the grid has several."""
    several = len({other.column for other in grid.cells}) > 1
    return f"{cell.row}, {cell.column}" if several and cell.column != SHARED else cell.row


def read_study(name: str, results: Path) -> Study:
    """Read a study's grid and results/small_study_<name>.csv, which need not exist yet.

    Raises:
        ValueError: no such study, a broken grid file, or a CSV that does not fit the grid.
    """
    grid, path = load_grid(name), csv_path(results, SCALE, name)
    measurements = read_measurements(path, grid, SCALE) if path.exists() else []
    values: dict[str, dict[int, float]] = {cell.name: {} for cell in grid.cells}
    diverged: dict[str, frozenset[int]] = {cell.name: frozenset() for cell in grid.cells}
    by_label = {(cell.row, cell.column): cell.name for cell in grid.cells}
    for one in measurements:
        cell = by_label[one.row, one.column]
        if one.value is None:
            diverged[cell] |= {one.seed}
        else:
            values[cell][one.seed] = one.value
    comparisons = _comparisons(grid, values, diverged)
    return Study(name, grid, measurements, values, diverged, comparisons, discussion(results, name))


def discussion(results: Path, name: str) -> str:
    """Return what people wrote about a study or record, nothing if nobody did."""
    path = results / "study" / f"{name}.md"
    return path.read_text("utf-8").strip() if path.exists() else ""


def _comparisons(grid: Grid, values: Values, diverged: Diverged) -> list[Comparison]:
    declared = grid.scales[SCALE].seeds  # others may have been run because of what these gave
    values = {name: {seed: one[seed] for seed in declared if seed in one} for name, one in values.items()}
    diverged = {name: one.intersection(declared) for name, one in diverged.items()}
    sides = [_sides(line, grid, values, diverged) for line in grid.comparisons]
    found = [Comparison(*pair, _test(*pair), _awaited(declared, *pair)) for pair in sides]
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _test(first: Side, second: Side) -> Paired | None:
    common = first.values.keys() & second.values.keys()
    return compare_paired(first.values, second.values) if common else None


def _awaited(declared: Sequence[int], *sides: Side) -> tuple[int, ...]:
    ended = [side.values.keys() | side.diverged for side in sides]
    return tuple(seed for seed in declared if any(seed not in one for one in ended))


def _sides(line: str, grid: Grid, values: Values, diverged: Diverged) -> tuple[Side, Side]:
    first, _, second = line.partition(_OVER)
    return _side(first, line, grid, values, diverged), _side(second, line, grid, values, diverged)


def _side(words: str, line: str, grid: Grid, values: Values, diverged: Diverged) -> Side:
    """Return one side of the comparison `line`. Raises ValueError for a name that is no cell's."""
    cells, names = {cell.name: cell for cell in grid.cells}, words.split(_MINUS)
    if len(names) > 2 or not cells.keys() >= set(names):
        raise ValueError(
            f"comparisons of study {grid.table}: {line!r}: expected <side> over <side>, where a side is a "
            f"cell or <cell> minus <cell>; the cells are {', '.join(cells)}"
        )
    first = values[names[0]]
    if len(names) == 1:
        return Side(label(cells[names[0]], grid), first, diverged[names[0]])
    second = values[names[1]]
    differences = {seed: first[seed] - second[seed] for seed in first.keys() & second.keys()}
    words = " − ".join(label(cells[name], grid) for name in names)
    return Side(f"({words})", differences, diverged[names[0]] | diverged[names[1]])

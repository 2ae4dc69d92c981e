"""A study: what it asks, and its runs at scale small compared seed by seed.

Its grid, configs/sweeps/study_<name>.yaml, also has `question` and `claim` (what the paper says) and
`comparisons`, a list of `<cell> over <cell>`: the differences that are tested, one family per study. Its
discussion, if there is one, is results/study/<name>.md, which people write; numbers are not written there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.collect import Measurement, csv_path
from tools.paired import Paired, compare_paired, holm
from tools.report_tables import read_measurements
from tools.sweep_grid import Cell, Grid, list_of, load_grid, read_grid_file

SCALE = "small"
_OVER = " over "


@dataclass(frozen=True)
class Comparison:
    """First minus second, None before both have a seed in common; `p_holm` is corrected within the study."""

    first: Cell
    second: Cell
    paired: Paired | None
    p_holm: float | None

    @property
    def verdict(self) -> str:
        """What the test says at the 5 % level, corrected."""
        if self.paired is None or self.p_holm is None:
            return "not tested"
        if self.p_holm >= 0.05:
            return "not told apart"
        return "higher" if self.paired.mean > 0 else "lower"


@dataclass(frozen=True)
class Study:
    """A study's text and numbers; `values` are top-1 in percent by the cell's name and the seed."""

    name: str
    question: str
    claim: str
    grid: Grid
    measurements: Sequence[Measurement]
    values: Mapping[str, Mapping[int, float]]
    comparisons: Sequence[Comparison]
    discussion: str

    @property
    def title(self) -> str:
        """The study's name as a heading."""
        return f"Study {self.name}: {self.question}"


def label(cell: Cell, study: Study) -> str:
    """Return a cell's name for readers: its row, and its column where the study has several."""
    columns = {other.column for other in study.grid.cells}
    return f"{cell.row}, {cell.column}" if len(columns) > 1 else cell.row


def read_study(name: str, results: Path) -> Study:
    """Read a study's grid and results/small_study_<name>.csv, which need not exist yet.

    Raises:
        ValueError: no such study, a broken grid file, or a CSV that does not fit the grid.
    """
    grid, text = load_grid(name), read_grid_file(name)
    path = csv_path(results, SCALE, name)
    measurements = read_measurements(path, grid, SCALE) if path.exists() else []
    values: dict[str, dict[int, float]] = {cell.name: {} for cell in grid.cells}
    by_label = {(cell.row, cell.column): cell.name for cell in grid.cells}
    for one in measurements:
        values[by_label[one.row, one.column]][one.seed] = one.value
    discussion = results / "study" / f"{name}.md"
    return Study(
        name,
        text["question"].text,
        text["claim"].text,
        grid,
        measurements,
        values,
        _comparisons(grid, text, values),
        discussion.read_text("utf-8").strip() if discussion.exists() else "",
    )


def _comparisons(
    grid: Grid, text: Mapping[str, Any], values: Mapping[str, Mapping[int, float]]
) -> list[Comparison]:
    cells, found = {cell.name: cell for cell in grid.cells}, []
    for line in list_of(text["comparisons"]):
        first, _, second = line.partition(_OVER)
        for name in (first, second):
            if name not in cells:
                raise ValueError(
                    f"{text['comparisons'].source}: comparisons: {line!r}: expected <cell> over <cell> with "
                    f"two of {', '.join(cells)}"
                )
        common = values[first].keys() & values[second].keys()
        paired = compare_paired(values[first], values[second]) if common else None
        found.append((cells[first], cells[second], paired))
    corrected = holm([paired.p if paired else None for *_, paired in found])
    return [Comparison(*one, p) for one, p in zip(found, corrected, strict=True)]

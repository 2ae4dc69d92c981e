"""Numbers of a table without runs or files."""

from collections.abc import Mapping

from tools.collect import Measurement
from tools.paper.grid import load_grid
from tools.paper.numbers import Place, read_paper
from tools.tables.numbers import Number, TableNumbers


def measurement(place: Place, value: float, seed: int = 0) -> Measurement:
    """Return a measurement that looks like one of a run."""
    return Measurement(
        table=place.table,
        row=place.row,
        column=place.column,
        metric=place.metric,
        value=value,
        seed=seed,
        scale="small",
        commit="0123456789",
        config_hash="abcdef",
        hardware="a machine",
        versions="torch 2",
        date="2026-02-03",
        run=f"{place.row}_{place.column}_seed{seed}",
    )


def numbers_by_hand(table: int, ours: Mapping[Place, Number], scale: str = "small") -> TableNumbers:
    """Return a table with the paper's numbers and these of ours, each of two seeds."""
    grid, published = load_grid(table), read_paper()
    found = {
        place: Number(
            number.mean, number.spread, tuple(measurement(place, number.mean, seed) for seed in (0, 1))
        )
        for place, number in ours.items()
    }
    paper = {place: Number(published[place].value) for cell in grid.cells for place in cell.places}
    measurements = [run for number in found.values() for run in number.runs]
    return TableNumbers(grid, scale, measurements, found, paper)

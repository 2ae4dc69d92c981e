"""Every cell of every table, trained at scale smoke, and the tables of what came out.

In this process, since a start of a trainer takes longer than such a run; test_sweep.py starts a real one.
"""

import importlib
from pathlib import Path

import pytest

from tools.collect import collect
from tools.paper.grid import TABLES, load_grid
from tools.tables.markdown import table_lines


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_trains_and_fills_its_place(table: int, tmp_path: Path) -> None:
    grid = load_grid(table)
    program = importlib.import_module(Path(grid.program).stem)
    for run in grid.runs("smoke", tmp_path, extra=[f"data.root={tmp_path / 'images'}"]):
        assert program.main(run.command[1:]) == 0, run.name
    measurements, missing = collect(grid, "smoke", tmp_path)
    assert missing == []
    places = [place for cell in grid.cells for place in cell.places]
    assert len(measurements) == len(places)
    assert f"{len(places)} of {len(places)} numbers." in table_lines(grid, "smoke", measurements)

"""Every cell of every table trains, at scale smoke.

In this process, since a start of a trainer takes longer than such a run; test_sweep.py starts a real one.
"""

import importlib
from pathlib import Path

import pytest

from tools.collect import collect
from tools.paper.grid import TABLES, load_table


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_trains_and_fills_its_place(table: int, tmp_path: Path) -> None:
    grid = load_table(table)
    program = importlib.import_module(Path(grid.program).stem)
    for run in grid.runs("smoke", tmp_path, extra=[f"data.root={tmp_path / 'images'}"]):
        assert program.main(run.command[1:]) == 0, run.name
    measurements, missing = collect(grid, "smoke", tmp_path)
    assert missing == [] and [one.place for one in measurements] == grid.places

"""The runs that the Makefile's recipes name are runs that the grids make."""

import re
import subprocess
from fnmatch import filter as matching
from pathlib import Path

import pytest

from tools.paper.grid import STUDIES, Grid, load_study, load_table

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("target", "grids", "scale"),
    [
        ("figure-6", [load_table(6)], "smoke"),
        ("figure-7", [load_table(2)], "smoke"),
        ("study-records", list(map(load_study, STUDIES)), "small"),
    ],
)
def test_recipes_name_runs_that_are_made(target: str, grids: list[Grid], scale: str) -> None:
    recipe = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    patterns = " ".join(re.findall(r"runs/sweeps/\S+_seed\d", recipe.stdout))
    # Without -f bash would look for the folders, which are not there; it writes out the braces.
    named = subprocess.run(["bash", "-fc", f"echo {patterns}"], capture_output=True, text=True).stdout.split()
    made = [str(run.folder) for grid in grids for run in grid.runs(scale, Path("runs/sweeps"))]
    assert named
    assert [name for name in named if not matching(made, name)] == []

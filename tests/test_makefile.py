"""What `make table-N`, `make study-N` and `make figure-N` would do."""

import re
import subprocess
from pathlib import Path

import pytest

from tools.paper.grid import STUDIES, load_grid

ROOT = Path(__file__).parents[1]


def commands(*words: str) -> str:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("table", [2, 3, 5, 6, 7])
def test_a_table_is_swept_collected_and_reported(table: int) -> None:
    text = commands(f"table-{table}", "SCALE=small", "SWEEP=data.root=/x")
    places = [
        text.index(words)
        for words in (
            f"tools.sweep --table {table} --scale small data.root=/x",
            f"tools.collect --table {table} --scale small",
            f"tools.table_figures --table {table} --scale small",
            "tools.report",
        )
    ]
    assert places == sorted(places)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_swept_collected_drawn_and_reported(study: str) -> None:
    text = commands(f"study-{study}", "SWEEP=data.root=/x")
    tools = (
        f"sweep --study {study} data.root=/x",
        f"collect --study {study}",
        f"study_figures --study {study}",
    )
    places = [text.index(f"tools.{words}") for words in (*tools, "report")]
    assert places == sorted(places)


def test_the_records_of_studies_are_made_of_their_runs() -> None:
    text = commands("study-records")
    runs = {
        str(run.folder) for study in STUDIES for run in load_grid(study).runs("small", Path("runs/sweeps"))
    }
    for name in ("study_boundaries/channel-wise_fix-init-{3,6,10}_seed0", "study_activations/r18_pwlu_seed0"):
        assert f"runs/sweeps/small/{name}" in text
        assert f"runs/sweeps/small/{name}".replace("{3,6,10}", "10") in runs
    assert [text.count(f"small_study_{kind}.json") for kind in ("iou", "shapes", "signal")] == [1, 1, 1]


def test_table_4_is_measured() -> None:
    assert "tools.latency --output results/latency/cpu.json" in commands("table-4")
    assert "tools.latency.figure results/latency/cpu.json" in commands("table-4")
    assert "tools.sweep" not in commands("table-4")


@pytest.mark.parametrize(
    ("figure", "table", "tool"),
    [
        (1, 2, "improvements --figures 1"),
        (5, 2, "improvements --figures 5"),
        (6, 6, "boundary_iou"),
        (7, 2, "plot_pwlu"),
    ],
)
def test_a_figure_is_made_of_the_runs_of_its_table(figure: int, table: int, tool: str) -> None:
    text = commands(f"figure-{figure}")
    assert text.index(f"tools.sweep --table {table} ") < text.index(f"tools.{tool} ")


def test_figure_6_shows_two_cells_of_table_6() -> None:
    runs = {str(run.folder) for run in load_grid(6).runs("smoke", Path("runs/sweeps"), seeds=[0])}
    pattern = r"(runs/sweeps/smoke/table6/channel-wise_)\{(.+?),(.+?)\}(_seed0)"
    found = re.search(pattern, commands("figure-6"))
    assert found and {f"{found[1]}{cell}{found[4]}" for cell in found.groups()[1:3]} <= runs


def test_figure_7_shows_the_pwlu_cells_of_table_2() -> None:
    assert "runs/sweeps/smoke/table2/*_pwlu_seed0" in commands("figure-7")
    names = [cell.name for cell in load_grid(2).cells if cell.name.endswith("_pwlu")]
    assert len(names) == 5

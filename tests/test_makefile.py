"""What `make table-N` and `make figure-N` would do."""

import subprocess
from pathlib import Path

import pytest

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
            "tools.report",
        )
    ]
    assert places == sorted(places)


def test_table_4_is_measured() -> None:
    assert "tools.latency --output results/latency_cpu.json" in commands("table-4")
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

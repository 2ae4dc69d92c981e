from pathlib import Path
from typing import Any

import pytest

from engine.config.load import COCO, IMAGENET, experiment_of, load_config
from tools.paper.grid import SCALES, TABLES, Run, load_table
from tools.paper.numbers import read_paper
from tools.tables.measurements import SHOWN

CELLS = {2: 35, 3: 8, 5: 9, 6: 9, 7: 15}
# What the cells of a table may differ in, all cells or those of one column.
AXES = {
    2: {"activation.name"},
    3: {"activation.name", "model.architecture"},
    5: {"activation.name", "activation.mode", "activation.bound", "phase1_epochs"},
    6: {"activation.name", "activation.mode", "activation.bound", "phase1_epochs"},
    7: {"activation.num_intervals"},
}


def runs_of(table: int, scale: str = "smoke", **options: Any) -> list[Run]:
    return load_table(table).runs(scale, Path("runs"), **options)


def declared(table: int, scale: str, cell: str) -> dict[str, Any]:
    return next(run for run in runs_of(table, scale) if run.cell.name == cell).declared


@pytest.mark.parametrize("table", TABLES)
def test_the_cells_fill_the_papers_table(table: int) -> None:
    cells = load_table(table).cells
    assert len(cells) == len({cell.name for cell in cells}) == CELLS[table]
    places = load_table(table).places
    expected = {place for place in read_paper()[table] if place.metric in SHOWN}
    assert len(places) == len(expected) and set(places) == expected


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_every_run_loads_and_differs_from_the_others_in_the_axis_alone(table: int, scale: str) -> None:
    runs = runs_of(table, scale)
    assert len(runs) == CELLS[table] and len({run.folder for run in runs}) == len(runs)
    for run in runs:
        assert run.config.output == str(run.folder) == f"runs/{scale}/table{table}/{run.cell.name}_seed0"
        assert experiment_of(run.config).values == run.declared
    by_column: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_column.setdefault(run.cell.column if table in (2, 7) else "", []).append(run.declared)
    for rows in by_column.values():
        assert {key for row in rows for key in row if row[key] != rows[0][key]} == AXES[table]
        assert all(row not in rows[:index] for index, row in enumerate(rows))


@pytest.mark.parametrize("table", TABLES)
def test_full_is_the_configuration_of_the_paper_and_the_axis_alone(table: int) -> None:
    grid = load_table(table)
    for run in grid.runs("full", Path("runs")):
        schema = COCO if grid.program == "train_coco.py" else IMAGENET
        plain = experiment_of(load_config(run.cell.config, [], schema)).values
        changed = {key for key, value in run.declared.items() if plain[key] != value}
        assert changed <= (AXES[table] if table in (5, 6, 7) else set())
    assert grid.scales["full"].settings == ()


def test_the_rows_of_tables_5_to_7_are_what_they_say() -> None:
    start = declared(5, "full", "layer-wise_fix-init-6")
    assert (start["phase1_epochs"], start["activation.bound"], start["activation.mode"]) == (0, 6, "layer")
    realigned = declared(6, "smoke", "channel-wise_stat-realign")
    assert (realigned["phase1_epochs"], realigned["activation.mode"]) == (0.5, "channel")
    assert declared(6, "small", "baseline")["activation.name"] == "relu"
    assert declared(6, "small", "channel-wise_fix-init-10")["phase1_epochs"] == 0
    assert declared(7, "full", "mbv3_N8")["activation.num_intervals"] == 8


def test_seeds_and_settings_for_all_runs() -> None:
    runs = runs_of(5, seeds=[0, 2], extra=["data.root=/images", "runtime.device=cpu"])
    assert len(runs) == 18 and runs[-1].name == "channel-wise_stat-realign_seed2"
    assert (runs[-1].config.seed, runs[-1].config.data.root) == (2, "/images")
    assert experiment_of(runs[-1].config).values == runs[-1].declared
    assert "seed=2" in runs[-1].arguments and "data.root=/images" in runs[-1].arguments


@pytest.mark.parametrize("word", ["optimizer.peak_lr=0.3", "seed=4", "runtime.amp=bf16"])
def test_what_would_change_the_experiment_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"{word} makes baseline_seed0 another experiment than scale smoke"):
        _ = runs_of(5, extra=[word])[0].config


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("program: train.py", "program is 'train.py', expected one of train_imagenet.py, train_coco.py"),
        ("row: {a: {paper: A}}", "section is 'row', expected one of .*; did you mean 'rows'"),
        ("question: why?", "section is 'question', expected one of"),
        ("rows: {a: {paper: A}}", "'program' is missing"),
        (
            "program: train_coco.py\nrows: {a: {set: {b: 1}}}\ncolumns: {c: {paper: C}}",
            "rows: a: 'label' is missing",
        ),
    ],
)
def test_a_broken_grid_is_explained(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "table5.yaml").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_table(5, tmp_path)


def test_a_table_that_is_no_sweep_is_refused() -> None:
    with pytest.raises(
        ValueError, match="table 4: expected one of 2, 3, 5, 6, 7, which are made of training runs"
    ):
        load_table(4)

import json
from pathlib import Path

import pytest

from tests.tools.sweep_records import write_run
from tools.paper.grid import load_table
from tools.tables import compare
from tools.tables.measurements import read_run


def finished_run(folder: Path, activation: str, seed: int, top1: float, **changed: object) -> Path:
    """A run of ResNet-18 in Table 2, below `folder`."""
    runs = load_table(2).runs("small", folder, seeds=[seed])
    (run,) = (run for run in runs if run.cell.name == f"r18_{activation}")
    write_run(run, {"top1": top1}, **changed)
    return run.folder


def test_mean_spread_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [finished_run(tmp_path, "pwlu", seed, 60.0 + 2 * seed) for seed in range(3)]
    runs.append(finished_run(tmp_path, "relu", 0, 61.5))
    output = tmp_path / "results" / "study.json"
    compare.main([*map(str, runs), "--output", str(output)])
    text = capsys.readouterr().out
    assert "| activation | n | top-1 (%) |" in text
    assert "| pwlu | 3 | 62.00 ± 2.00 |\n| relu | 1 | 61.50 |" in text
    assert (
        "9469 training and 10 validation images, 20 epochs; commit 0123456789, a GPU, torch 2.14.1." in text
    )
    assert [run["top1"] for run in json.loads(output.read_text())["runs"]] == [60.0, 62.0, 64.0, 61.5]


def test_runs_that_differ_otherwise_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [finished_run(tmp_path, "pwlu", 0, 60.0), finished_run(tmp_path, "relu", 0, 60.0, epochs=3)]
    with pytest.raises(SystemExit):
        compare.main([*map(str, runs), "--output", str(tmp_path / "study.json")])
    assert "epochs is 20 in one and 3 in another" in capsys.readouterr().err
    assert not (tmp_path / "study.json").exists()


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "pwlu", 0, 60.0)
    (run / "FINISHED").unlink()
    for mark, words in (("REQUEUE", "give its command again"), ("DIVERGED", "it diverged")):
        (run / mark).write_text("{}")
        with pytest.raises(ValueError, match=f"no finished run, as it has no file FINISHED: {words}"):
            read_run(run)

import json
from pathlib import Path

import pytest

from tools.tables import compare
from tools.tables.measurements import read_run


def finished_run(folder: Path, activation: str, seed: int, top1: float, **settings: object) -> Path:
    folder.mkdir()
    experiment = {"activation.name": activation, "seed": seed, "model.name": "resnet18", "epochs": 2}
    experiment |= {
        "phase1_epochs": 1.0,
        "global_batch_size": 8,
        "runtime.amp": "off",
        "data.image_size_px": 32,
    }
    start = {
        "code": {"commit": "0123456789abcdef", "uncommitted_changes": False},
        "hardware": {"device": "cpu", "cpu": "a processor"},
        "packages": {"torch": "2.14.1"},
    }
    data = {"num_train": 20, "num_val": 10, "num_classes": 2}
    manifest = {"experiment": experiment | settings, "data": data, "starts": [start]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    evals = [{"kind": "eval", "epoch": 1.0, "top1": 1.0}, {"kind": "eval", "epoch": 2.0, "top1": top1}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, evals)) + "\n")
    (folder / "FINISHED").write_text("{}")
    return folder


def test_mean_spread_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [finished_run(tmp_path / f"p{seed}", "pwlu", seed, 60.0 + 2 * seed) for seed in range(3)]
    runs.append(finished_run(tmp_path / "r0", "relu", 0, 61.5))
    output = tmp_path / "results" / "study.json"
    compare.main([*map(str, runs), "--output", str(output)])
    text = capsys.readouterr().out
    assert "| activation | n | top-1 (%) |" in text
    assert "| pwlu | 3 | 62.00 ± 2.00 |\n| relu | 1 | 61.50 |" in text
    assert (
        "20 training and 10 validation images, 2 epochs; commit 0123456789, a processor, torch 2.14.1."
        in text
    )
    assert [run["top1"] for run in json.loads(output.read_text())["runs"]] == [60.0, 62.0, 64.0, 61.5]


def test_runs_that_differ_otherwise_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        finished_run(tmp_path / "a", "pwlu", 0, 60.0),
        finished_run(tmp_path / "b", "relu", 0, 60.0, epochs=3),
    ]
    with pytest.raises(SystemExit):
        compare.main([*map(str, runs), "--output", str(tmp_path / "study.json")])
    assert "epochs is 2 in one and 3 in another" in capsys.readouterr().err
    assert not (tmp_path / "study.json").exists()


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "a", "pwlu", 0, 60.0)
    (run / "FINISHED").unlink()
    for mark, words in (("REQUEUE", "give its command again"), ("DIVERGED", "it diverged")):
        (run / mark).write_text("{}")
        with pytest.raises(ValueError, match=f"no finished run, as it has no file FINISHED: {words}"):
            read_run(run)

import json
from pathlib import Path

import pytest

from tools.tables import compare


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


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["compare", *map(str, arguments)])
    compare.main()


def test_mean_spread_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        finished_run(tmp_path / f"p{seed}", "pwlu", seed, top1)
        for seed, top1 in enumerate((60.0, 62.0, 64.0))
    ]
    runs.append(finished_run(tmp_path / "r0", "relu", 0, 61.5))
    output = tmp_path / "results" / "study.json"
    run_main(monkeypatch, *runs, "--title", "A study", "--output", output)
    text = output.with_suffix(".md").read_text()
    assert "| pwlu | 62.00 ± 2.00 | 3 | 60.00, 62.00, 64.00 |" in text
    assert "| relu | 61.50 | 1 | 61.50 |" in text
    assert "0123456789" in text and "20 training and 10 validation images" in text
    assert [run["top1"] for run in json.loads(output.read_text())["runs"]] == [60.0, 62.0, 64.0, 61.5]


def test_detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "model.architecture": "mask_rcnn",
        "model.engine": "torchvision",
        "model.backbone": "resnet18",
    }
    settings |= {
        "model.pyramid_channels": 64,
        "data.train_split": "few",
        "data.val_split": "few",
        "steps": 500,
    }
    settings |= {"data.shorter_side_px": 192, "data.longer_side_px": 256}
    for activation, ap50 in (("relu", 90.0), ("pwlu", 92.5)):
        run = finished_run(tmp_path / activation, activation, 0, 0.0, **settings)
        evaluation = {"kind": "eval", "epoch": 5.0, "bbox_AP": 60.0, "bbox_AP50": ap50, "segm_AP": 50.0}
        (run / "metrics.jsonl").write_text(json.dumps(evaluation) + "\n")
    output = tmp_path / "few.json"
    runs = [tmp_path / "relu", tmp_path / "pwlu"]
    run_main(monkeypatch, *runs, "--title", "Few photographs", "--output", output)
    text = output.with_suffix(".md").read_text()
    assert "| activation | box AP | box AP50 | mask AP | seeds |" in text
    assert "| pwlu | 60.00 | 92.50 | 50.00 | 1 |\n| relu | 60.00 | 90.00 | 50.00 | 1 |" in text
    assert "20 images, evaluated on the same images, at most 192 x 256 px, 500 steps" in text


def test_runs_that_differ_otherwise_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        finished_run(tmp_path / "a", "pwlu", 0, 60.0),
        finished_run(tmp_path / "b", "relu", 0, 60.0, epochs=3),
    ]
    with pytest.raises(SystemExit, match="epochs is 2 in one and 3 in another"):
        run_main(monkeypatch, *runs, "--title", "A study", "--output", tmp_path / "study.json")
    assert not (tmp_path / "study.json").exists()


def test_unfinished_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path / "a", "pwlu", 0, 60.0)
    (run / "FINISHED").unlink()
    for mark, words in (("REQUEUE", "give its command again"), ("DIVERGED", "it diverged")):
        (run / mark).write_text("{}")
        with pytest.raises(SystemExit, match=f"no finished run, as it has no file FINISHED: {words}"):
            run_main(monkeypatch, run, "--title", "A study", "--output", tmp_path / "study.json")

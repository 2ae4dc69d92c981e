import csv
import re
import shutil
from pathlib import Path

import pytest

from engine.config.load import experiment_of
from tests.tools.sweep_records import write_run
from tools import collect
from tools.paper.grid import Run, load_table


def runs_of(tmp_path: Path, table: int = 6, scale: str = "small", **options: object) -> dict[str, Run]:
    runs = load_table(table).runs(scale, tmp_path / "sweeps", **options)
    return {run.name: run for run in runs}


def main(tmp_path: Path, *arguments: object) -> None:
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path), *map(str, arguments)])


def lines_of(tmp_path: Path, name: str) -> list[dict[str, str]]:
    with open(tmp_path / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_number_comes_with_its_place_and_where_it_came_from(tmp_path: Path) -> None:
    run = runs_of(tmp_path)["baseline_seed0"]
    write_run(run, {"top1": 12.345678, "top5": 50.0})
    main(tmp_path, "--table", 6, "--scale", "small")
    assert lines_of(tmp_path, "small_table6") == [
        {
            "table": "6",
            "row": "MobileNet-V3 baseline",
            "column": "both",
            "metric": "top1",
            "value": "12.345678",
            "seed": "0",
            "scale": "small",
            "commit": "0123456789",
            "config_hash": experiment_of(run.config).hash,
            "hardware": "2 x a GPU",
            "versions": "python 3.11.0; torch 2.14.1; timm 1.0",
            "date": "2026-02-03",
            "run": "baseline_seed0",
        }
    ]


def test_every_metric_of_a_detector_is_a_line_also_of_a_diverged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = runs_of(tmp_path, 3)
    write_run(runs["mask_rcnn_pwlu_seed0"], {"bbox_AP": 3.0, "segm_AP": 2.0}, diverged=True)
    write_run(runs["retinanet_relu_seed0"], {"bbox_AP": 1.0})
    write_run(runs["mask_rcnn_relu_seed0"], {"bbox_AP": 3.0, "segm_AP": 2.0})
    main(tmp_path, "--table", 3)
    lines = lines_of(tmp_path, "small_table3")
    assert [(line["row"], line["column"], line["metric"], line["value"]) for line in lines] == [
        ("ReLU", "Mask R-CNN", "bbox_AP", "3.0"),
        ("ReLU", "Mask R-CNN", "segm_AP", "2.0"),
        ("ReLU", "RetinaNet", "bbox_AP", "1.0"),
        ("PWLU", "Mask R-CNN", "bbox_AP", "diverged"),
        ("PWLU", "Mask R-CNN", "segm_AP", "diverged"),
    ]
    printed = capsys.readouterr().out
    assert ": 3 numbers of 3 runs\ndiverged: mask_rcnn_pwlu_seed0\n" in printed
    assert "mask_rcnn_pwlu_seed0" not in printed.partition("missing")[2]


def test_missing_cells_are_named_and_every_seed_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = runs_of(tmp_path, seeds=[0, 1, 5])
    unfinished = "layer-wise_fix-init-3_seed0"
    for name, run in runs.items():
        if run.seed == 0 or name in ("baseline_seed5", "layer-wise_fix-init-6_seed5"):
            finished = name not in (unfinished, "layer-wise_fix-init-6_seed5")
            write_run(run, {"top1": 1.0}, finished=finished)
    main(tmp_path)
    lines = lines_of(tmp_path, "small_table6")
    assert [line["run"] for line in lines][-1] == "baseline_seed5" and len(lines) == 8 + 1
    printed = capsys.readouterr().out
    assert f"missing: {unfinished}, layer-wise_fix-init-6_seed5; `python -m tools.sweep --table 6" in printed


def test_numbers_of_scale_smoke_stay_beside_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs_of(tmp_path, scale="smoke")["baseline_seed0"], {"top1": 1.0})
    monkeypatch.setattr("tools.tables.measurements.RESULTS", tmp_path / "results")
    collect.main(["--output", str(tmp_path / "sweeps"), "--table", "6"])
    assert (tmp_path / "sweeps" / "smoke" / "tables" / "smoke_table6.csv").exists()
    assert not (tmp_path / "results").exists() and "numbers mean nothing" in capsys.readouterr().out
    write_run(runs_of(tmp_path)["baseline_seed0"], {"top1": 1.0})
    collect.main(["--output", str(tmp_path / "sweeps"), "--table", "6"])
    assert [path.name for path in (tmp_path / "results" / "tables").iterdir()] == ["small_table6.csv"]


def test_numbers_outlive_their_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = runs_of(tmp_path, seeds=[0, 1])
    first, second = runs["baseline_seed0"], runs["baseline_seed1"]
    write_run(first, {"top1": 1.0})
    write_run(runs["layer-wise_fix-init-3_seed0"], {}, diverged=True)
    main(tmp_path)
    kept = lines_of(tmp_path, "small_table6")
    shutil.rmtree(tmp_path / "sweeps")
    write_run(second, {"top1": 2.0})
    capsys.readouterr()
    main(tmp_path)
    printed = capsys.readouterr().out
    assert lines_of(tmp_path, "small_table6")[:2] == kept and "2 numbers of 3 runs" in printed
    assert "as they have not ended in the folder of sweeps: 2 runs\ndiverged: layer-wise_fix" in printed
    assert "baseline_seed0" not in printed and "baseline_seed1" not in printed  # none is missing
    write_run(first, {"top1": 3.0})
    main(tmp_path)
    assert [line["value"] for line in lines_of(tmp_path, "small_table6")] == ["3.0", "diverged", "2.0"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r",[0-9a-f]{16},2 x", ",0123456789abcdef,2 x"),
        ("MobileNet-V3 baseline", "MobileNet-V4"),
        ("baseline_seed0", "start_seed0"),
    ],
)
def test_numbers_of_what_the_grid_no_longer_declares_are_left_out(
    tmp_path: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = runs_of(tmp_path, seeds=[0, 1])
    write_run(runs["baseline_seed0"], {"top1": 1.0})
    main(tmp_path)
    path = tmp_path / "tables" / "small_table6.csv"
    text, changes = re.subn(old, new, path.read_text())
    assert changes == 1
    path.write_text(text)
    shutil.rmtree(runs["baseline_seed0"].folder)
    write_run(runs["baseline_seed1"], {"top1": 2.0})
    main(tmp_path)
    assert [line["value"] for line in lines_of(tmp_path, "small_table6")] == ["2.0"]
    assert "left out, as configs/sweeps/table6.yaml declares other runs now: " in capsys.readouterr().out


def test_a_csv_that_cannot_be_read_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(runs_of(tmp_path)["baseline_seed0"], {"top1": 1.0})
    main(tmp_path)
    path = tmp_path / "tables" / "small_table6.csv"
    path.write_text(path.read_text().replace(",1.0,", ",one,"))
    broken = path.read_text()
    with pytest.raises(SystemExit):
        main(tmp_path)
    assert "line 2: not a line of tools.collect" in capsys.readouterr().err and path.read_text() == broken


@pytest.mark.parametrize(
    ("changes", "metrics", "sentence"),
    [
        ({"epochs": 2}, {"top1": 1.0}, "belongs to another experiment: epochs was 2, is now 20"),
        ({"activation__name": "pwlu"}, {"top1": 1.0}, "activation.name was 'pwlu', is now 'relu'"),
        ({"num_train": 99}, {"top1": 1.0}, "trained on 99 images, but scale small is Imagenette, 128 px"),
        ({}, {"top1": None}, "the last evaluation has no value for top1"),
    ],
)
def test_what_is_not_the_declared_run_is_refused(
    tmp_path: Path, changes: dict[str, object], metrics: dict[str, float | None], sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_run(runs_of(tmp_path)["baseline_seed0"], metrics, **changes)
    with pytest.raises(SystemExit):
        main(tmp_path, "--table", 6)
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.csv"))


def test_a_resumed_run_has_all_its_commits() -> None:
    code = {"commit": "a" * 40, "uncommitted_changes": False}
    starts = [{"code": code}, {"code": {"commit": "b" * 40, "uncommitted_changes": True}}, {"code": code}]
    last = {"hardware": {"cpu": "a CPU"}, "packages": {}, "python": "3.11", "world_size": 1}
    starts[-1] |= last | {"time_utc": "2026-02-03T04:05:06+00:00"}
    origin = collect._origin(starts)
    assert origin["commit"] == "aaaaaaaaaa bbbbbbbbbb+changes"
    assert origin["hardware"] == "1 x a CPU"


def test_without_a_finished_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(runs_of(tmp_path)["baseline_seed0"], {}, finished=False)
    with pytest.raises(SystemExit):
        main(tmp_path)
    assert "of what was asked for has ended; run tools.sweep first" in capsys.readouterr().err

"""`python -m tools.sweep` with a stub in the place of Python, and one real run."""

import json
import sys
from pathlib import Path

import pytest

from engine.processes.program import EXIT_FAILED
from tools import collect
from tools.paper.grid import load_study, load_table
from tools.sweep import __main__ as sweep
from tools.tables.measurements import read_measurements

# Finishes every run, but those named in the files FAIL and DIVERGE beside it fail and diverge.
STUB = """#!{python} -S
import os, sys
folder = next(word[7:] for word in sys.argv if word.startswith("output="))
here = os.path.dirname(__file__)
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
def named(name):
    path = os.path.join(here, name)
    return os.path.exists(path) and os.path.basename(folder) in open(path).read()
if named("FAIL"):
    sys.exit("error: no luck")
if named("DIVERGE"):
    open(os.path.join(folder, "DIVERGED"), "w").write('{{"step": 3, "lr": 0.1}}')
    open(os.path.join(folder, "manifest.json"), "w").write(open(os.path.join(here, "manifest")).read())
    sys.exit("error: the loss is nan")
open(os.path.join(folder, "FINISHED"), "w").write("{{}}")
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the arguments of every program that a sweep starts."""
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    return tmp_path / "calls"


def main(tmp_path: Path, *words: object) -> int:
    return sweep.main(["--output", str(tmp_path / "sweeps"), "--scale", "smoke", *map(str, words)])


def test_failed_runs_are_told_and_the_same_command_makes_them_alone(
    tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "layer-wise_fix-init-6_seed0"
    (tmp_path / "FAIL").write_text(failing)
    assert main(tmp_path, "--table", 6, "--jobs", 2, "runtime.device=cpu") == EXIT_FAILED
    printed = capsys.readouterr().out
    assert "Runs: 9; finished: 0; to do: 9," in printed and "2 at once on CPU" in printed
    assert f"{failing}: FAILED with status 1: error: no luck" in printed
    assert f"finished: 8\nfailed: 1 ({failing})" in printed
    assert len(calls.read_text().splitlines()) == 9
    (tmp_path / "FAIL").unlink()
    assert main(tmp_path, "--table", 6, "runtime.device=cpu") == 0
    assert "Runs: 9; finished: 8; to do: 1," in capsys.readouterr().out
    *_, last = calls.read_text().splitlines()
    assert len(calls.read_text().splitlines()) == 10
    assert last.startswith("train_imagenet.py --config configs/mbv3_pwlu.yaml epochs=1 ")
    assert last.endswith(f"seed=0 runtime.device=cpu output={tmp_path}/sweeps/smoke/table6/{failing}")
    assert main(tmp_path, "--table", 6) == 0
    assert "nothing to do" in capsys.readouterr().out and len(calls.read_text().splitlines()) == 10


def test_a_diverged_run_is_a_result(tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "DIVERGE").write_text("baseline_seed0")
    declared = load_table(6).runs("smoke", tmp_path)[0].declared
    (tmp_path / "manifest").write_text(json.dumps({"experiment": declared}))
    assert main(tmp_path, "--table", 6, "--jobs", 2, "runtime.device=cpu") == 0
    printed = capsys.readouterr().out
    assert "baseline_seed0: diverged, which is its result: error: the loss is nan; all of it: " in printed
    assert "[9 of 9 ended]" in printed and "finished: 8\ndiverged: 1 (baseline_seed0)\n" in printed
    assert main(tmp_path, "--table", 6) == 0
    assert "finished: 8; diverged: 1; to do: 0" in capsys.readouterr().out
    assert len(calls.read_text().splitlines()) == 9


def test_a_dry_run_does_nothing(tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path, "--table", 2, "--dry-run", "--seeds", "0,1") == 0
    assert "Runs: 70; finished: 0" in capsys.readouterr().out
    assert not calls.exists() and not (tmp_path / "sweeps").exists()


def test_each_run_gets_one_of_the_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep.visible_gpus([]) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a")
    assert sweep.visible_gpus(["data.root=x"]) == ["3", "GPU-a"]
    assert sweep.visible_gpus(["runtime.device=cpu"]) == []
    assert sweep.visible_gpus(["runtime.device=cpu", "runtime.device=cuda"]) == ["3", "GPU-a"]
    study = load_study("starts").runs("small", Path())[0]
    assert sweep.visible_gpus(study.arguments) == []  # its grid says cpu


def test_runs_wait_for_what_they_start_from_or_are_refused(
    tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", str(tmp_path / "sweeps"), "--study", "finetune", "--seeds", "4"]
    with pytest.raises(SystemExit):
        sweep.main([*words, "--cells", "r18_pwlu*"])
    assert "study_long/r18_relu_seed4 is new" in " ".join(capsys.readouterr().err.split())
    assert not calls.exists()
    assert sweep.main([*words, "--cells", "r18_pwlu", "--dry-run"]) == 0  # it says what there is to do
    assert sweep.main([*words, "--jobs", "7"]) == 0
    first, *others = calls.read_text().splitlines()
    source = tmp_path / "sweeps" / "small" / "study_long" / "r18_relu_seed4"
    assert f"output={source}" in first and len(others) == 6
    assert all(line.endswith(f" --init-from {source}/checkpoints/last.pt") for line in others)


def test_some_cells(tmp_path: Path, calls: Path) -> None:
    assert main(tmp_path, "--table", 7, "--cells", "mbv3_N[48]", "runtime.device=cpu") == 0
    folders = (tmp_path / "sweeps" / "smoke" / "table7").iterdir()
    assert sorted(folder.name for folder in folders) == ["mbv3_N4_seed0", "mbv3_N8_seed0"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--table", 5, "--cells", "r18*"], "--cells 'r18*' fits none of table 5's: baseline, layer-wise_"),
        (["--table", 5, "epoch=3"], "unknown key 'epoch'"),
        (["--table", 5, "optimizer.momentum=0.5"], "makes baseline_seed0 another experiment"),
        (["--table", 5, "--jobs", 0], "argument --jobs: expected an integer >= 1"),
        (["--table", 5, "--seeds", "a"], "argument --seeds: invalid"),
        (["--table", 5, "--images-per-second", 0], "argument --images-per-second: invalid"),
    ],
)
def test_a_wrong_command_is_explained(
    tmp_path: Path, calls: Path, words: list[object], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(tmp_path, *words)
    assert sentence in capsys.readouterr().err
    assert not calls.exists()


def test_a_real_run_becomes_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(tmp_path, "--table", 6, "--cells", "channel-wise_stat-realign", "runtime.device=cpu")
    folder = tmp_path / "sweeps" / "smoke" / "table6" / "channel-wise_stat-realign_seed0"
    assert status == 0, (folder / "sweep.log").read_text()
    collect.main(["--output", str(tmp_path / "sweeps"), "--results", str(tmp_path)])
    assert "missing: baseline_seed0, " in capsys.readouterr().out
    (found,) = read_measurements(tmp_path, "smoke", load_table(6))
    assert (found.row, found.column) == ("PWLU-stat-realign", "channel-wise") and 0 <= found.value <= 100

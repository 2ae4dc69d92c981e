import shlex
from pathlib import Path

import pytest

from tests.tools.sweep_records import write_run
from tools.paper.grid import load_study, load_table
from tools.sweep import __main__ as sweep
from tools.sweep.slurm import array_list, array_path, sbatch_command

SBATCH = """#!/bin/bash
printf '%s\\n' "$@" >"$(dirname "$0")/arguments"
cp "${@: -1}" "$(dirname "$0")/list"
echo "${ANSWER:-Submitted batch job 4711}"
exit "${STATUS:-0}"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an sbatch that keeps what it gets."""
    folder = tmp_path / "the bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def main(tmp_path: Path, *words: object) -> int:
    arguments = ["--launcher", "slurm", "--output", str(tmp_path / "my sweeps"), *map(str, words)]
    return sweep.main(arguments)


def test_the_array_has_a_line_for_each_unfinished_run(
    tmp_path: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my sweeps" / "full" / "table5"
    (folder / "baseline_seed0").mkdir(parents=True)
    (folder / "baseline_seed0" / "FINISHED").write_text("{}")
    options = "--sbatch=--partition=gpu --time=9:00:00"
    assert main(tmp_path, "--table", 5, "--jobs", 3, options, "data.root=/the images") == 0
    assert "Submitted batch job 4711" in capsys.readouterr().out
    words = (cluster / "arguments").read_text().splitlines()
    assert words[0] == "--array=0-7%3" and {"--partition=gpu", "--time=9:00:00"} <= set(words)
    assert f"--output={folder}/slurm-%A_%a.out" in words and "--gpus-per-node=1" not in words
    assert words[-2:] == ["scripts/sweep.sbatch", f"{folder}/array-1.tsv"]
    lines = [line.split("\t") for line in (cluster / "list").read_text().splitlines()]
    assert len(lines) == 8
    assert lines[0] == [
        "train_imagenet.py",
        "configs/r18_pwlu.yaml",
        "activation.mode=layer",
        "phase1_epochs=0",
        "activation.bound=3",
        "seed=0",
        "data.root=/the images",
        f"output={folder}/layer-wise_fix-init-3_seed0",
    ]
    assert array_path(folder).name == "array-2.tsv"


def test_an_array_starts_from_runs_that_are_finished(
    tmp_path: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--study", "finetune", "--seeds", "0,1"]
    with pytest.raises(SystemExit):
        main(tmp_path, *words)
    said = " ".join(capsys.readouterr().err.split())
    folder = tmp_path / "my sweeps" / "small" / "study_long"
    assert f"not finished: 2 ({folder}/r18_relu_seed0 is new, {folder}/r18_relu_seed1 is new); make" in said
    assert "tools.sweep --study long --scale small --cells r18_relu --seeds 0,1" in said
    assert not (cluster / "list").exists()
    for run in load_study("long").runs("small", tmp_path / "my sweeps", [0, 1]):
        if run.cell.name == "r18_relu":
            write_run(run, {"top1": 50.0})
    assert main(tmp_path, *words) == 0
    lines = [line.split("\t") for line in (cluster / "list").read_text().splitlines()]
    assert len(lines) == 12
    for line in lines:
        seed = line[-3][-1]
        assert line[-2:] == ["--init-from", f"{folder}/r18_relu_seed{seed}/checkpoints/last.pt"]


def test_a_dry_run_prints_the_command_alone(
    tmp_path: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path, "--table", 3, "--scale", "small", "--dry-run") == 0
    *_, last = capsys.readouterr().out.splitlines()
    path = tmp_path / "my sweeps" / "small" / "table3" / "array-1.tsv"
    runs = load_table(3).runs("small", tmp_path / "my sweeps")
    assert shlex.split(last) == sbatch_command(runs, path, at_once=None, options=[])
    # A small run has one GPU; options given by the user come later and win.
    assert shlex.split(last)[4:6] == ["--gpus-per-node=1", "--cpus-per-task=8"]
    assert not (cluster / "arguments").exists() and not path.exists()


def test_a_refusal_is_told_and_leaves_no_list(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATUS", "1")
    monkeypatch.setenv("ANSWER", "invalid partition")
    with pytest.raises(SystemExit):
        main(tmp_path, "--table", 5)
    assert "sbatch exits with 1: invalid partition" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tsv"))
    (cluster / "sbatch").unlink()
    with pytest.raises(SystemExit):
        main(tmp_path, "--table", 5)
    assert "sbatch not found: --launcher slurm needs" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tsv"))


def test_a_word_that_the_list_cannot_hold_is_refused(tmp_path: Path) -> None:
    runs = load_table(5).runs("full", tmp_path, extra=["data.root=a\tb"])
    with pytest.raises(ValueError, match="holds a tab or a line break"):
        array_list(runs)

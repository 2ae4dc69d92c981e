"""The training program from the outside: real processes, killed, signalled, misconfigured, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_imagenet
from engine.config.load import IMAGENET, load_config
from engine.data import DataError
from engine.processes.distributed import World
from engine.processes.program import EXIT_STOPPED
from engine.records.record import read_records
from engine.runs.folder import RunFolder
from engine.training.checkpoint import CheckpointError
from pwlu import PWLU
from tests import fault_injection
from tests.photographs import needs_photographs, unpack
from tests.training_runs import (
    KILLED,
    REPOSITORY,
    Outcome,
    assert_same_bits,
    records,
    run,
    weights,
)


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of two processes that nothing interrupted: its folder and how it ended."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = run(folder / "logs", [*settings, f"output={folder}"], processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    return folder, outcome


def functions(folder: Path) -> list[dict[str, Any]]:
    return read_records(folder / "curves.jsonl")


def test_a_run_tells_its_story(whole: tuple[Path, Outcome]) -> None:
    folder, outcome = whole
    lines = outcome.outputs[0].splitlines()
    assert outcome.outputs[1] == ""  # only the main process speaks
    assert any(line.startswith("replaced 10 of 12 sites") for line in lines)
    assert "3 steps per epoch, each of 8 images: 2 x cpu x 2 micro-batches x 2" in lines
    story = [line for line in lines if line.startswith("epoch")]
    assert ["phase I " in line for line in story if " lr " in line] == [True] * 4 + [False] * 8
    assert [line[:26] for line in story if "realignment" in line] == ["epoch 1.33/4  step  4/12  "]
    assert [line[:26] for line in story if "validation: top1" in line] == [
        f"epoch {epoch}.00/4  step {3 * epoch:2}/12  " for epoch in (1, 2, 3, 4)
    ]
    endings = ["finished: top1", "best: ema_top1", "weights: ", "records: ", "learned curves: "]
    assert all(line.startswith(start) for line, start in zip(lines[-5:], endings, strict=True))


def test_a_run_leaves_everything_in_its_folder(whole: tuple[Path, Outcome], settings: list[str]) -> None:
    folder, _ = whole
    config = load_config(settings[1], [settings[2], f"output={folder}"], IMAGENET)
    assert load_config(folder / "config.yaml", [], IMAGENET) == config
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["experiment"]["model.name"] == "test_resnet"
    assert manifest["data"] == {"num_train": 24, "num_val": 15, "num_classes": 3}
    assert [start["step"] for start in manifest["starts"]] == [0]
    assert manifest["starts"][0]["world_size"] == 2
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert len(events.Scalars("train/loss")) == len(events.Scalars("train/lr")) == 12
    assert [event.step for event in events.Scalars("eval/top1")] == [3, 6, 9, 12]
    assert [event.step for event in events.Images("pwlu/curves")] == [0, 4, 12]
    with Image.open(folder / "curves.png") as picture:
        assert picture.width > 1000
    assert [entry["step"] for entry in functions(folder)] == [0, 4, 12]
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(
        [".lock", "FINISHED", "config.yaml", "curves.jsonl", "curves.png", "manifest.json", "metrics.jsonl"]
    )
    final = json.loads((folder / "FINISHED").read_text())
    last_record = records(folder)[-1]
    assert last_record["kind"] == "eval" and final == {name: last_record[name] for name in final}


def test_killed_again_and_again_the_same_command_reaches_the_same_weights(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    arguments = [*settings, f"output={tmp_path}"]
    faults = [
        partial(
            fault_injection.die_in_step, victim=1, step=3
        ),  # after the checkpoint of step 2, in the first epoch
        partial(fault_injection.die_in_rename, rename=8),  # while files get their names
        partial(fault_injection.die_in_evaluation, victim=0, evaluation=2),  # with the checkpoint just saved
        partial(fault_injection.die_in_step, victim=0, step=4),
    ]
    for fault in faults:
        outcome = run(tmp_path / "logs", arguments, processes=2, fault=fault)
        assert sorted(outcome.statuses) == [KILLED, 1], outcome.output  # the other one notices and leaves
        assert not (tmp_path / "FINISHED").exists()
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    assert "resuming at step" in outcome.outputs[0]
    folder, _ = whole
    assert_same_bits(weights(tmp_path), weights(folder))
    assert_same_bits(weights(tmp_path, "best.pt"), weights(folder, "best.pt"))
    assert records(tmp_path) == records(folder)
    assert functions(tmp_path) == functions(folder)
    starts = json.loads((tmp_path / "manifest.json").read_text())["starts"]
    assert [start["step"] for start in starts] == sorted(start["step"] for start in starts)
    assert len(starts) == 5


def test_a_run_goes_on_with_its_batch_norms_fused(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    """Checkpoints are of the same network."""
    arguments, fault = (
        [*settings, f"output={tmp_path}"],
        partial(fault_injection.die_in_step, victim=0, step=7),
    )
    apart = run(tmp_path / "apart", [*arguments, "runtime.fuse_batch_norm=false"], processes=2, fault=fault)
    fused = run(tmp_path / "fused", arguments, processes=2)
    assert fused.statuses == [0, 0], fused.output
    told = "10 of 10 PWLUs fused with the BatchNorm before them"
    assert told not in apart.output and fused.output.count(told) == 1
    folder, _ = whole
    for first, other in zip(records(folder), records(tmp_path), strict=True):
        assert first.keys() == other.keys()
        # Later on, rounding has grown: BatchNorms of two elements multiply it.
        if first["kind"] == "train" and first["step"] <= 7:
            assert other["loss"] == pytest.approx(first["loss"], rel=0.02)


def train_under_torchrun(how: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Train in two processes and do to torchrun what tests/signalled_training.py says.

    Return when every process has ended that has the pipe of its output, data loading processes included.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--local-addr=localhost"]
    command += [str(REPOSITORY / "tests" / "signalled_training.py"), how]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )


def test_torchrun_is_told_to_stop_and_all_is_saved(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    """As on a cluster: torchrun signals its processes' groups, data loading processes included."""
    number = signal.SIGTERM
    arguments = [*settings, f"output={tmp_path}", "data.workers=1"]
    done = train_under_torchrun(str(number.value), arguments)
    assert done.returncode != 0
    assert f"stopped by {number.name} at step 4, saved" in done.stdout, done.stdout + done.stderr
    assert json.loads((tmp_path / "REQUEUE").read_text()) == {"step": 4, "signal": number.name}
    assert not (tmp_path / "FINISHED").exists()
    assert torch.load(tmp_path / "checkpoints" / "last.pt")["step"] == 4
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0] and "resuming at step 4" in outcome.outputs[0], outcome.output
    assert not (tmp_path / "REQUEUE").exists()
    assert_same_bits(weights(tmp_path), weights(whole[0]))
    assert records(tmp_path) == records(whole[0])


def test_processes_end_with_a_killed_torchrun_and_the_same_command_goes_on(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    """One process waits for the other in the rendezvous, then in a step, when torchrun is killed."""
    arguments = [*settings, f"output={tmp_path / 'run'}", "data.workers=1"]
    for how in (str(tmp_path / "mark"), "step"):
        done = train_under_torchrun(how, arguments)
        assert done.returncode == KILLED
        assert done.stderr.count("error: the torchrun") == 1 and "the same command goes on" in done.stderr
    assert not (tmp_path / "run" / "FINISHED").exists()
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0] and "resuming at step 3" in outcome.outputs[0], outcome.output
    assert_same_bits(weights(tmp_path / "run"), weights(whole[0]))
    assert records(tmp_path / "run") == records(whole[0])


def test_a_folder_that_cannot_be_continued_is_refused(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    arguments = [*settings, f"output={folder}", "optimizer.peak_lr=0.5"]
    another = r"peak_lr was 0\.05, is now 0\.5"
    with pytest.raises(CheckpointError, match=another):  # finished by another experiment
        train_imagenet.main(arguments)
    assert train_imagenet.main(arguments[:-1]) == 0
    assert "this run is finished: top1" in capsys.readouterr().out
    (folder / "FINISHED").unlink()
    with pytest.raises(CheckpointError, match=another):  # begun by another experiment
        train_imagenet.main(arguments)
    last = folder / "checkpoints" / "last.pt"
    torch.save({"weights": torch.zeros(1)}, last)
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        train_imagenet.main(arguments[:-1])
    assert records(folder) == records(whole[0])  # nothing was touched


def test_evaluation_of_a_checkpoint_by_one_and_two_processes(
    whole: tuple[Path, Outcome], settings: list[str], tmp_path: Path
) -> None:
    folder, _ = whole
    best = str(folder / "checkpoints" / "best.pt")
    results = []
    for processes in (1, 2):
        outcome = run(tmp_path / "logs", [*settings, "--eval", best], processes=processes)
        assert outcome.statuses == [0] * processes, outcome.output
        results.append(json.loads(outcome.outputs[0]))
    with pytest.raises(CheckpointError, match="activation.num_intervals was 6, is now 8. Give the --config"):
        train_imagenet.main([*settings, "activation.num_intervals=8", "--eval", best])
    with pytest.raises(CheckpointError, match="cannot read this checkpoint: No such file"):
        train_imagenet.main([*settings, "--eval", "nowhere.pt"])
    alone, together = results
    losses = [name for name in alone if name.endswith("loss")]
    for name in alone:
        assert together[name] == (pytest.approx(alone[name], rel=1e-5) if name in losses else alone[name])
    evaluations = [entry for entry in records(folder) if entry["kind"] == "eval"]
    (recorded,) = [entry for entry in evaluations if entry["step"] == alone["step"]]
    del together["checkpoint"]
    assert {name: recorded[name] for name in together} == together
    assert alone["images"] == 15
    assert alone["ema_top1"] == max(entry["ema_top1"] for entry in evaluations)


def test_evaluation_matches_classes_by_name_and_needs_val_alone(
    whole: tuple[Path, Outcome], settings: list[str], images: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(images / "val", tmp_path / "val")
    arguments = [*settings, f"output={tmp_path / 'run'}"]
    arguments += ["--eval", str(whole[0] / "checkpoints" / "best.pt")]
    assert train_imagenet.main(arguments) == train_imagenet.main([*arguments, f"data.root={tmp_path}"]) == 0
    with_train, alone = capsys.readouterr().out.splitlines()
    assert alone == with_train
    shutil.rmtree(tmp_path / "val" / "bee")
    assert train_imagenet.main([*arguments, f"data.root={tmp_path}"]) == 0
    warning, result = capsys.readouterr().out.splitlines()
    assert "best.pt" in warning and "'bee'" in warning and json.loads(result)["images"] == 10
    (tmp_path / "val" / "ant").rename(tmp_path / "val" / "zebra")
    with pytest.raises(DataError, match="val: .*best.pt: .*'zebra'.*'ant', 'bee'"):
        train_imagenet.main([*arguments, f"data.root={tmp_path}"])


@pytest.mark.parametrize("name", ["zebra", "Ant"])
def test_a_run_does_not_go_on_with_other_classes(
    name: str, whole: tuple[Path, Outcome], settings: list[str], images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "images")
    for split in ("train", "val"):
        (tmp_path / "images" / split / "ant").rename(tmp_path / "images" / split / name)
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "FINISHED").unlink()
    arguments = [*settings, f"output={tmp_path / 'run'}"]
    with pytest.raises(CheckpointError, match=f"last.pt .*images/train: .*'{name}'.*'ant'.*output="):
        train_imagenet.main([*arguments, f"data.root={tmp_path / 'images'}"])
    assert_same_bits(weights(tmp_path / "run"), weights(whole[0]))


def test_a_loss_that_is_no_number_stops_all_processes(settings: list[str], tmp_path: Path) -> None:
    """It happens on one process only, in the second micro-batch of step 5 (two micro-batches a step)."""
    fault = partial(fault_injection.nan_loss, micro_batch=12)
    outcome = run(tmp_path / "logs", [*settings, f"output={tmp_path}"], processes=2, fault=fault)
    assert outcome.statuses == [1, 1], outcome.output
    error = outcome.outputs[0].splitlines()[-1]
    assert error.startswith("error: the loss is nan at step 5 with learning rate 0.0426")
    assert f"the last good checkpoint is {tmp_path}/checkpoints/last.pt, step 4" in error
    assert outcome.outputs[1] == ""
    last = torch.load(tmp_path / "checkpoints" / "last.pt")
    assert last["step"] == 4 and all(tensor.isfinite().all() for tensor in last["model"].values())
    assert not (tmp_path / "FINISHED").exists() and not (tmp_path / "REQUEUE").exists()
    assert RunFolder(tmp_path).divergence()["step"] == 5


def test_an_error_of_one_process_ends_the_run_and_can_be_read(
    images: Path, settings: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    broken = sorted((copy / "train").rglob("*.jpg"))[5]
    broken.write_bytes(b"not a picture")
    arguments = [*settings, f"data.root={copy}", f"output={tmp_path / 'run'}"]
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [1, 1]
    assert sum(broken.name in output and "error in process" in output for output in outcome.outputs) == 1
    arguments += ["data.broken_images=skip", "epochs=2", f"output={tmp_path / 'tolerant'}"]
    tolerant = run(tmp_path / "logs", arguments, processes=2)
    assert tolerant.statuses == [0, 0], tolerant.output
    assert "skipped broken image" in tolerant.output and broken.name in tolerant.output


def test_a_wrong_word_is_one_line_from_one_process(settings: list[str], tmp_path: Path) -> None:
    outcome = run(tmp_path / "logs", [*settings, "epoch=3"], processes=2)
    assert outcome.statuses == [1, 1]
    assert outcome.outputs[0] == "error: command line: unknown key 'epoch'; did you mean 'epochs'?\n"
    assert outcome.outputs[1] == ""


@pytest.mark.parametrize(
    "switches",
    [
        ["runtime.amp=bf16", "runtime.channels_last=true", "optimizer.label_smoothing=0.1"],
        ["runtime.amp=fp16", "optimizer.clip_grad_norm=1.0", "optimizer.nesterov=true"],
        ["phase1_epochs=0", "optimizer.ema_decay=0", "runtime.device_batch_size=8", "activation.mode=layer"],
        ["activation.name=prelu", "optimizer.activation_lr_multiplier=0.1", "data.kind=digits", "epochs=1",
         "global_batch_size=512", "runtime.device_batch_size=512", "schedule.warmup_epochs=0",
         "phase1_epochs=0"],
    ],
    ids=["bf16", "fp16", "fix-init", "prelu"],
)  # fmt: skip
def test_switches(
    switches: list[str], settings: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr("engine.runs.reporting.draw_curves", lambda model, title: None)
    assert train_imagenet.main([*settings, f"output={tmp_path}", *switches]) == 0
    entries = [entry for entry in records(tmp_path) if entry["kind"] == "train"]
    assert all(entry["loss"] is not None for entry in entries)
    printed = capsys.readouterr().out
    if "phase1_epochs=0" in switches:
        phase = None if "activation.name=prelu" in switches else 2
        assert {entry.get("phase") for entry in entries} == {phase}
        assert "realignment" not in printed
    else:
        assert [entry["phase"] for entry in entries] == [1] * 4 + [2] * 8
    assert (tmp_path / "curves.jsonl").exists() == ("activation.name=prelu" not in switches)
    saved = torch.load(tmp_path / "checkpoints" / "last.pt")
    assert (saved["ema"] is None) == ("optimizer.ema_decay=0" in switches)
    assert bool(saved["scaler"]) == ("runtime.amp=fp16" in switches)
    if "runtime.channels_last=true" in switches:
        assert saved["model"]["conv1.0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_the_compile_switch_compiles_the_network(settings: list[str], monkeypatch: Any) -> None:
    """How compiled training behaves: tests/engine/training/test_step.py and test_distributed.py."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    config = load_config(settings[1], [settings[2], "runtime.compile=true"], IMAGENET)
    _, model, _ = train_imagenet.build(config, World())
    assert compiled == [model]


@needs_photographs
def test_photographs_through_both_phases(tmp_path: Path) -> None:
    """ResNet-18 on ImageNet photographs, with the paper's configuration and only its size cut down."""
    images = unpack("cls_224_tiny.tar", tmp_path / "images")
    (root,) = {path.parent for path in images.rglob("train")}
    arguments = ["--config", str(REPOSITORY / "configs" / "r18_pwlu.yaml"), f"data.root={root}"]
    arguments += ["data.image_size_px=48", "data.workers=0", "epochs=2", "phase1_epochs=1"]
    arguments += ["global_batch_size=80", "schedule.warmup_epochs=1", "runtime.device_batch_size=40"]
    arguments += [f"output={tmp_path / 'run'}"]
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    assert "replaced 17 of 17 sites" in outcome.outputs[0]
    kinds = [entry["kind"] for entry in records(tmp_path / "run")]
    assert kinds == ["train", "realign", "eval", "train", "eval"]
    model = torch.load(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    fresh = PWLU(1)
    moved = [
        name
        for name in model
        if name.endswith(".points") and not torch.equal(model[name][0], fresh.points[0])
    ]
    assert len(moved) == 17


def test_stopping_before_training_leaves_a_place_to_go_on_from(settings: list[str], tmp_path: Path) -> None:
    """A signal while the program still starts: after the first step everything is saved."""
    outcome = run(tmp_path / "logs", [*settings, f"output={tmp_path}"], fault=signal_at_start)
    assert outcome.statuses == [EXIT_STOPPED], outcome.output
    assert "stopped by SIGUSR1 at step 1, saved" in outcome.outputs[0]


def signal_at_start(rank: int) -> None:
    fault_injection.before(train_imagenet, "build", 1, lambda: os.kill(os.getpid(), signal.SIGUSR1))

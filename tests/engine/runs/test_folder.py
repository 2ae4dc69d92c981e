import errno
import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config.experiment import Experiment
from engine.data.classes import named, numbered
from engine.files import FolderError
from engine.runs.folder import RunFolder
from engine.training.checkpoint import CheckpointError

DATA = {"num_train": 100, "num_classes": 2}
CLASSES = named(["ant", "bee"], "data/train")
Other = tuple[BaseProcess, Connection]


def experiment(**changes: Any) -> Experiment:
    settings = {"seed": 0, "optimizer": {"peak_lr": 0.1}, "runtime": {"amp": "off"}}
    return Experiment(settings, {"seed": 0, "optimizer.peak_lr": 0.1} | changes, "abc")


def save(folder: RunFolder, step: int = 1) -> None:
    folder.checkpoints.save({"step": step, **experiment().identity(DATA), "classes": CLASSES.plain()})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A folder in which a run was started."""
    folder = RunFolder(tmp_path / "runs" / "a")
    assert folder.open(experiment(), DATA, CLASSES) is None
    return folder


def test_a_folder_has_settings_and_manifest_and_a_run_keeps_its_starts(folder: RunFolder) -> None:
    starts = [{"step": 0, "device": "cpu"}, {"step": 7, "device": "cuda"}]
    folder.add_start(starts[0])
    save(folder, step=7)
    checkpoint = folder.open(experiment(), DATA, CLASSES)
    assert checkpoint is not None and checkpoint["step"] == 7
    folder.add_start(starts[1])
    assert yaml.safe_load(folder.config.read_text()) == experiment().settings
    assert json.loads(folder.manifest.read_text()) == {
        "experiment_hash": "abc",
        "experiment": {"seed": 0, "optimizer.peak_lr": 0.1},
        "data": DATA,
        "starts": starts,
    }


@pytest.mark.parametrize("evidence", ["checkpoint", "records", "foreign checkpoint"])
def test_another_experiment_is_refused_by_its_keys(evidence: str, folder: RunFolder) -> None:
    if evidence == "records":
        folder.metrics.write_text('{"kind": "train", "step": 1}\n')
    else:
        save(folder)
    if evidence == "foreign checkpoint":  # copied here from another run
        folder.manifest.unlink()
    with pytest.raises(CheckpointError, match=r"peak_lr was 0.1, is now 0.2\. .*output="):
        folder.open(experiment(**{"optimizer.peak_lr": 0.2}), DATA, CLASSES)
    with pytest.raises(CheckpointError, match="num_train was 100, is now 99"):
        folder.open(experiment(), DATA | {"num_train": 99}, CLASSES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "wasp"], r"new: 1 \('wasp'\); gone: 1 \('bee'\)"),  # renamed
        (["bee", "ant"], r"in another order: 2 \(label 0 was 'ant', is now 'bee', label 1 was 'bee', .*"),
        (["aardvark", "ant", "bee"], r"new: 1 \('aardvark'\)"),  # shifts all labels
        (["ant"], r"gone: 1 \('bee'\)"),
        (["Ant", "bee"], r"new: 1 \('Ant'\); gone: 1 \('ant'\)"),
    ],
)
def test_labels_that_stand_for_other_classes_are_refused(
    folder: RunFolder, names: list[str], message: str
) -> None:
    save(folder)
    data = DATA | {"num_classes": len(names)}
    with pytest.raises(CheckpointError, match=f"last.pt .*other classes .*photos: {message}.*output="):
        folder.open(experiment(), data, named(names, "photos"))
    assert folder.open(experiment(), DATA, CLASSES) is not None


@pytest.mark.parametrize("which", ["saved", "now", "neither"])
def test_classes_without_names_cannot_be_compared(
    folder: RunFolder, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an older checkpoint, or of shards without meta.json."""
    nameless = numbered(2, "shards")
    saved, now = (CLASSES if which not in (name, "neither") else nameless for name in ("saved", "now"))
    folder.checkpoints.save({"step": 1, **experiment().identity(DATA), "classes": saved.plain()})
    assert folder.open(experiment(), DATA, now) is not None
    warned = "has no class names: whether labels" in capsys.readouterr().out
    assert warned == (which != "neither")
    with pytest.raises(CheckpointError, match="num_classes was 2, is now 3"):
        folder.open(experiment(), DATA | {"num_classes": 3}, numbered(3, "shards"))


def test_a_checkpoint_from_before_names_goes_on_with_a_warning(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.checkpoints.save({"step": 1, **experiment().identity(DATA)})
    assert folder.open(experiment(), DATA, CLASSES) is not None
    assert "last.pt has no class names" in capsys.readouterr().out


def test_a_start_without_a_step_binds_to_nothing(folder: RunFolder) -> None:
    folder.open(experiment(seed=1), DATA, CLASSES)
    assert json.loads(folder.manifest.read_text())["experiment"]["seed"] == 1


def test_beginning_again_over_records_is_said(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.metrics.write_text('{"kind": "train", "step": 1}\n')
    assert folder.open(experiment(), DATA, CLASSES) is None
    assert "records of an earlier start but no checkpoint: beginning again" in capsys.readouterr().out


def test_markers(folder: RunFolder) -> None:
    requeue = folder.path / "REQUEUE"
    assert folder.final_metrics(experiment().values) is None
    folder.mark_requeue(3, "SIGTERM")
    assert json.loads(requeue.read_text()) == {"step": 3, "signal": "SIGTERM"}
    folder.open(experiment(), DATA, CLASSES)
    assert not requeue.exists()
    folder.mark_finished({"top1": 70.0})
    assert folder.final_metrics(experiment().values) == {"top1": 70.0}
    with pytest.raises(CheckpointError, match="seed was 0, is now 4"):
        folder.final_metrics(experiment(seed=4).values)


def test_half_written_files_are_removed(folder: RunFolder) -> None:
    save(folder)
    leftovers = [folder.path / "manifest.json.writing", folder.path / "checkpoints" / "next.pt.writing"]
    for leftover in leftovers:
        leftover.write_text("half")
    assert folder.open(experiment(), DATA, CLASSES) is not None
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_folder_with_a_foreign_manifest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("not json")
    with pytest.raises(CheckpointError, match=r"manifest\.json: not what a run of this project writes"):
        RunFolder(tmp_path).open(experiment(), DATA, CLASSES)
    assert (tmp_path / "manifest.json").read_text() == "not json"


def claim(folder: Path) -> None:
    with RunFolder(folder).claimed():
        pass


def _hold(folder: Path, connection: Connection) -> None:
    with RunFolder(folder).claimed():
        connection.send("held")
        connection.recv()
    connection.send("given back")
    connection.recv()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    """Another process that holds tmp_path / "run", and a connection to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_hold, args=(tmp_path / "run", there), daemon=True)
    process.start()
    there.close()
    assert here.recv() == "held"
    yield process, here
    process.kill()
    process.join()


def test_a_folder_in_use_is_refused_until_it_is_given_back(tmp_path: Path, other: Other) -> None:
    process, connection = other
    named = rf"run is in use: another start of this run \(process {process.pid} on \S+\) is at work"
    with pytest.raises(CheckpointError, match=named):
        claim(tmp_path / "run")
    connection.send("go on")
    assert connection.recv() == "given back"
    claim(tmp_path / "run")


def test_a_killed_process_holds_nothing(tmp_path: Path, other: Other) -> None:
    process, _ = other
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    claim(tmp_path / "run")


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    claim(tmp_path / "run")
    warning = capsys.readouterr().out
    assert "No locks available" in warning and "do not start this run twice" in warning


def test_a_lock_that_fails_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", fail)
    with pytest.raises(OSError, match="Input/output error: .*run/.lock"):
        claim(tmp_path / "run")


def test_where_nothing_can_be_written_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder(tmp_path / "runs" / "a").require_writable()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/run", "link"):
        with pytest.raises(FolderError, match=r"output: .*(file|link) is no folder; .*output="):
            RunFolder(tmp_path / name).require_writable()
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FolderError, match="is your home folder; name one in it by output="):
        RunFolder(tmp_path / ".").require_writable()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(FolderError, match=f"nothing can be written to {tmp_path}, .*output="):
        RunFolder(tmp_path / "runs" / "a").require_writable()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", ["", "[]", "5", '{"experiment": ', "\0\0\0"])
def test_a_mark_made_by_hand_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "FINISHED").write_text(content)
    with pytest.raises(CheckpointError, match="FINISHED: not what a run of this project writes"):
        RunFolder(tmp_path).final_metrics({})


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"name": "of another program"}'])
def test_a_manifest_of_another_program_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json: not what a run of this project writes"):
        RunFolder(tmp_path).open(experiment(), DATA, CLASSES)

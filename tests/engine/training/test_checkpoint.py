import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.training import checkpoint
from engine.training.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    DamagedCheckpoint,
    load_weights,
    read_checkpoint,
    require_same,
    write_checkpoint,
)


def content(step: int) -> dict[str, Any]:
    return {"step": step, "model": {"weight": torch.full((50,), float(step))}, "optimizer": {"state": {}}}


def test_round_trip_keeps_tensors_and_plain_values(tmp_path: Path) -> None:
    saved = {"step": 3, "model": {"w": torch.randn(2, 3)}, "ema": None, "best": {"top1": 1.5}, "names": ["a"]}
    write_checkpoint(tmp_path / "x.pt", saved)
    loaded = read_checkpoint(tmp_path / "x.pt")
    assert torch.equal(loaded.pop("model")["w"], saved.pop("model")["w"])
    assert loaded == saved | {"format": checkpoint.FORMAT, "version": checkpoint.VERSION}


def test_a_truncated_file_is_damaged_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_checkpoint(path, content(1))
    whole = path.read_bytes()
    for length in [0, 4, 30, *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint, match=r"x\.pt: this checkpoint is damaged"):
            read_checkpoint(path)


def test_altered_bytes_and_zeros_are_noticed(tmp_path: Path) -> None:
    """Zeros are what some file systems leave after a power failure."""
    path = tmp_path / "x.pt"
    write_checkpoint(path, content(1))
    values = torch.full((50,), 1.0).numpy().tobytes()
    altered = path.read_bytes().replace(values, values[:-1] + b"\x41")
    for damaged, sentence in ((altered, "is altered"), (bytes(5000), "is empty")):
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint, match=sentence):
            read_checkpoint(path)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


FOREIGN = {
    "text": lambda path: path.write_text("hello, this is a text"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"step": 1})),
    "zip": write_zip,
    "bare weights": lambda path: torch.save({"weight": torch.zeros(2)}, path),
    "list": lambda path: torch.save([1, 2], path),
    "whole module": lambda path: torch.save(nn.Linear(1, 1), path),
    "old torch format": lambda path: torch.save([1], path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_told_from_a_damaged_one(kind: str, tmp_path: Path) -> None:
    FOREIGN[kind](tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match="not a checkpoint of this project.*expected a file that"
    ) as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert not isinstance(caught.value, DamagedCheckpoint)


def test_missing_file_and_later_version_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pt: cannot read this checkpoint: No such file"):
        read_checkpoint(tmp_path / "x.pt")
    torch.save({"format": checkpoint.FORMAT, "version": 99}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="version 99, but this program reads version 2"):
        read_checkpoint(tmp_path / "x.pt")


def test_damaged_last_gives_the_previous_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(content(1))
    folder.save(content(2))
    folder.last.write_bytes(folder.last.read_bytes()[:100])
    latest = folder.load_latest()
    assert latest is not None and latest["step"] == 1
    (warning,) = capsys.readouterr().out.splitlines()
    assert "last.pt: this checkpoint is damaged" in warning
    assert "continuing from previous.pt, step 1" in warning
    folder.save(content(2))  # the damaged one must not take the good one's place
    assert read_checkpoint(folder.previous)["step"] == 1


def test_no_good_checkpoint_or_a_foreign_last_is_an_error_and_no_new_start(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(content(1))
    folder.last.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"damaged.*there is no previous\.pt.*or delete"):
        folder.load_latest()
    folder.previous.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"last\.pt.*damaged.*previous\.pt.*damaged"):
        folder.load_latest()
    torch.save({"weight": torch.zeros(1)}, folder.last)
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        folder.load_latest()


class Died(BaseException):
    """The process is gone: no handler of the program runs."""


@pytest.mark.parametrize("survived", range(8))
def test_death_at_any_file_operation_leaves_a_good_checkpoint(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`save` forces to the disk and renames; it may die before any of these, the n-th included."""
    folder = CheckpointFolder(tmp_path)
    folder.save(content(1))
    folder.save(content(2))
    operations = 0

    def mortal(operation: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal operations
            operations += 1
            if operations > survived:
                raise Died
            return operation(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", mortal(os.replace))
        patch.setattr(os, "fsync", mortal(os.fsync))
        try:
            folder.save(content(3))
            assert operations <= survived
        except Died:
            assert operations == survived + 1
    latest = folder.load_latest()
    assert latest is not None and latest["step"] == (2 if survived < 2 else 3)
    assert read_checkpoint(folder.previous)["step"] == latest["step"] - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_best_has_weights_and_no_optimizer(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save_best(content(7))
    best = read_checkpoint(folder.best)
    assert best["step"] == 7 and "model" in best and "optimizer" not in best


def test_differing_settings_are_all_named() -> None:
    require_same({"a": 1, "b": 2.0}, {"a": 1, "b": 2.0}, Path("run"))
    with pytest.raises(CheckpointError) as caught:
        require_same({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 6}, Path("run"))
    message = str(caught.value)
    assert "run belongs to another experiment: b was 2, is now 5; c was 3, is now None; d was None" in message
    assert "output=" in message and "a was" not in message


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match="(?s)do not fit this network.*size mismatch for weight"):
        load_weights(nn.Linear(2, 2), nn.Linear(3, 2).state_dict())

"""What file systems answer: those that lack something, and those that fail."""

import errno
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from engine.errors import sentence_of
from engine.evaluation import Record
from engine.files import TEMPORARY_SUFFIX, write_atomically, write_text_atomically
from engine.records import console
from engine.records.record import JsonLines, TensorBoard
from engine.training.checkpoint import CheckpointFolder, read_checkpoint
from tests.fault_injection import fail_opening_folders, fail_sync


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults and warnings of one test reach no other."""
    for name in ("fsync", "open", "replace"):
        monkeypatch.setattr(os, name, getattr(os, name))
    monkeypatch.setattr(console, "_warned", set())


@pytest.mark.parametrize(
    "fault",
    [
        partial(fail_sync, errno.EINVAL, of_folders=True),  # CIFS
        partial(fail_sync, errno.ENOTSUP, of_folders=True),
        partial(fail_sync, errno.EBADF, of_folders=True),
        partial(fail_sync, errno.ENOSYS, of_folders=True),
        partial(fail_opening_folders, errno.EACCES),
        partial(fail_opening_folders, errno.EPERM),
        partial(fail_opening_folders, errno.EISDIR),
    ],
)
def test_a_file_system_that_syncs_no_folders_is_one_warning(
    tmp_path: Path, fault: Callable[[], None], capsys: Any
) -> None:
    fault()
    checkpoints = CheckpointFolder(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        checkpoints.save({"step": step})
        write_text_atomically(tmp_path / "manifest.json", str(step))
    assert read_checkpoint(checkpoints.last)["step"] == 3
    assert read_checkpoint(checkpoints.previous)["step"] == 2
    assert (tmp_path / "manifest.json").read_text() == "3"
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 1 and f"{tmp_path / 'checkpoints'}: this file system" in printed


def test_files_are_synced_where_folders_cannot_be(tmp_path: Path) -> None:
    fail_sync(errno.EINVAL, of_folders=True)
    refusing, synced = os.fsync, []

    def keep(handle: Any) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        refusing(handle)

    os.fsync = keep
    write_text_atomically(tmp_path / "a", "text")
    assert len(synced) == 2 and synced[0].startswith(f"{tmp_path / 'a'}.") and synced[1] == str(tmp_path)


def test_a_file_system_that_syncs_no_files_is_one_warning(tmp_path: Path, capsys: Any) -> None:
    fail_sync(errno.ENOTSUP, of_folders=False)
    for name in ("a", "b"):
        write_text_atomically(tmp_path / name, name)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["a", "b"]
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 1 and str(tmp_path / "a") in printed


@pytest.mark.parametrize(
    "fault",
    [
        partial(fail_sync, errno.EIO, of_folders=True),
        partial(fail_sync, errno.ENOSPC, of_folders=True),
        partial(fail_sync, errno.EIO, of_folders=False),
        partial(fail_opening_folders, errno.EIO),
    ],
)
def test_a_failing_disk_is_an_error(tmp_path: Path, fault: Callable[[], None]) -> None:
    fault()
    with pytest.raises(OSError) as caught:
        write_text_atomically(tmp_path / "a", "text")
    assert str(tmp_path) in str(sentence_of(caught.value))


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(file: IO[bytes]) -> None:
    file.write(b"half")
    no_room()


def test_a_full_disk_leaves_the_last_good_file_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save({"step": 1})
    with pytest.raises(OSError) as caught:
        write_atomically(checkpoints.last, half_written)
    sentence = str(sentence_of(caught.value))
    assert str(checkpoints.last) in sentence and "No space left" in sentence and "make room" in sentence
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert read_checkpoint(checkpoints.last)["step"] == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_checkpoint_that_meets_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    checkpoints.save({"step": 1})
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0")
    (tmp_path / f"next.pt.0{TEMPORARY_SUFFIX}").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        checkpoints.save({"step": 2, "weights": torch.zeros(100_000)})
    assert f"{tmp_path / 'next.pt'}: No space left on device; make room" in str(sentence_of(caught.value))
    latest = CheckpointFolder(tmp_path).load_latest()
    assert latest is not None and latest["step"] == 1
    checkpoints.save({"step": 2})  # there is room again
    assert read_checkpoint(checkpoints.last)["step"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_records_that_meet_a_full_disk(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl", 0)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, lines._file.fileno())
    os.close(full)
    for call in (lambda: lines(Record("train", 1, 0.5, {"loss": 1.0})), lines.close):
        with pytest.raises(OSError) as caught:
            call()
        assert f"{tmp_path / 'metrics.jsonl'}: No space left" in str(sentence_of(caught.value))


def test_events_that_meet_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = TensorBoard(tmp_path, 0)
    monkeypatch.setattr(board.writer, "add_scalar", no_room)
    with pytest.raises(OSError) as caught:
        board(Record("train", 1, 0.5, {"loss": 1.0}))
    assert f"{tmp_path}: No space left" in str(sentence_of(caught.value))
    board.close()


def test_a_name_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError) as caught:
        write_text_atomically(tmp_path / "a", "text")
    assert str(tmp_path / "a") in str(sentence_of(caught.value))
    assert [file.name for file in tmp_path.iterdir()] == ["a"]

"""Two starts of a run at the same time."""

import errno
import fcntl
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from engine.runs.claim import claimed
from engine.training.checkpoint import CheckpointError

Other = tuple[BaseProcess, Connection]


def hold(folder: Path, connection: Connection) -> None:
    with claimed(folder, warn=connection.send):
        connection.send("held")
        connection.recv()
    connection.send("given back")
    connection.recv()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    """Another process that holds tmp_path / "run", and a line to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "run", there), daemon=True)
    process.start()
    there.close()
    assert here.recv() == "held"
    yield process, here
    process.kill()
    process.join()


def claim(folder: Path) -> list[str]:
    warnings: list[str] = []
    with claimed(folder, warnings.append):
        pass
    return warnings


def test_a_folder_in_use_is_refused_until_it_is_given_back(tmp_path: Path, other: Other) -> None:
    _, connection = other
    with pytest.raises(CheckpointError, match="run is in use: another start of this run"):
        claim(tmp_path / "run")
    connection.send("go on")
    assert connection.recv() == "given back"
    assert claim(tmp_path / "run") == []


def test_a_killed_process_holds_nothing(tmp_path: Path, other: Other) -> None:
    process, _ = other
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert claim(tmp_path / "run") == []


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    (warning,) = claim(tmp_path / "run")
    assert "No locks available" in warning and "do not start this run twice" in warning

import os
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from engine.data.source import DataError
from engine.processes.failure import report_failure

LOST = RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:3733")


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What torchrun keeps for two processes; returns a function that becomes one of them."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "WORLD_SIZE": 2}

    def become(rank: int, attempt: int = 0) -> Path:
        own = {"RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RESTART_COUNT": attempt}
        file = tmp_path / f"{attempt}_{rank}.json"
        names = {**common, **own, "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_ERROR_FILE": file}
        for name, value in names.items():
            monkeypatch.setenv(name, str(value))
        return file

    yield become
    del store


def test_what_all_processes_meet_is_said_once_and_by_torchrun(torchrun: Any, capsys: Any) -> None:
    missing = DataError("root: /nowhere is not a folder")
    for rank in (1, 0):
        file = torchrun(rank)
        report_failure(missing)
        # torchrun's last lines, after its own traceback
        message: Any = ProcessFailure(rank, 0, 1, str(file)).message
        assert message["extraInfo"]["py_callstack"] == str(missing)
    assert capsys.readouterr().err == "error in process 1: root: /nowhere is not a folder\n"
    torchrun(0, attempt=1)  # --max-restarts
    report_failure(missing)
    assert capsys.readouterr().err == "error: root: /nowhere is not a folder\n"


def test_different_errors_are_all_said(torchrun: Any, capsys: Any) -> None:
    for rank in (0, 1):
        torchrun(rank)
        report_failure(DataError(f"image {rank}"))
    assert capsys.readouterr().err == "error: image 0\nerror in process 1: image 1\n"


def test_the_end_of_another_process_is_said_only_where_nothing_else_was(torchrun: Any, capsys: Any) -> None:
    torchrun(1)
    report_failure(LOST)  # the other one was killed
    printed = capsys.readouterr().err
    assert printed.startswith("RuntimeError: ") and "error in process 1: RuntimeError: [pair" in printed
    for rank, error in ((0, DataError("image 0")), (1, LOST)):
        file = torchrun(rank, attempt=1)
        report_failure(error)
    assert capsys.readouterr().err == "error: image 0\n"
    assert not file.exists()


def test_without_a_store_all_speak_but_for_what_is_said_before_they_join(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for rank in (0, 1):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        report_failure(DataError("wrong word"))
        report_failure(KeyError("crash"))
    printed = capsys.readouterr().err
    assert printed.count("wrong word") == 1 and printed.count("KeyError: 'crash'\nerror in") == 2


def test_a_full_disk_takes_neither_the_status_nor_the_sentence(
    torchrun: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    torchrun(0)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/nowhere/error.json")
    with open("/dev/full", "w") as full:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", full)
            print("a line that waits to be written")
            report_failure(DataError("image 0"))
        assert capsys.readouterr().err == "error: image 0\n"
        monkeypatch.setattr("sys.stderr", full)
        report_failure(DataError("image 1"))
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from engine.data.source import DataError
from engine.errors import UserError
from engine.processes.distributed import MainProcessError
from engine.processes.program import EXIT_STOPPED, exit_with


class Left(BaseException):
    """Stands for the end of the process."""


def leave(status: int) -> NoReturn:
    raise Left(status)


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


INTERRUPTED = "interrupted; the same command goes on from the last checkpoint\n"


@pytest.mark.parametrize(
    ("error", "rank", "status", "begin", "end"),
    [
        (UserError("the loss is nan"), 0, 1, "error: the loss is nan\n", ""),
        (UserError("the loss is nan"), 1, 1, None, ""),  # the main process says it
        (MainProcessError("disk full"), 1, 1, None, ""),
        (KeyboardInterrupt(), 0, 130, INTERRUPTED, ""),
        (KeyboardInterrupt(), 1, 130, None, ""),
        (DataError("no such folder"), 0, 1, "error: no such folder\n", ""),
        (FileNotFoundError(2, "No such file", "x.jpg"), 0, 1, "error: x.jpg: No such file\n", ""),
        (ValueError("no shape"), 0, 1, "Traceback", "error in process 0: ValueError: no shape\n"),
        (KeyError("key"), 0, 1, "Traceback", "error in process 0: KeyError: 'key'\n"),
    ],
)
def test_failures_leave_at_once(
    error: BaseException, rank: int, status: int, begin: str | None, end: str, monkeypatch: Any, capsys: Any
) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left, match=f"^{status}$"):
        exit_with(raising(error))
    printed = capsys.readouterr()
    assert printed.out == ""
    if begin is None:
        assert printed.err == ""
    else:
        assert printed.err.startswith(begin) and printed.err.endswith(end)
        is_crash = begin == "Traceback"
        assert ("test_program.py" in printed.err) == is_crash
        assert is_crash or printed.err.count("\n") == 1


@pytest.mark.parametrize("status", [0, EXIT_STOPPED])
def test_an_orderly_end_gives_the_status(status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        exit_with(lambda: status)
    assert caught.value.code == status

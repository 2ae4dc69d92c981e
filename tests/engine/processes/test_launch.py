from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from engine.processes.distributed import MainProcessError
from engine.processes.launch import EXIT_STOPPED, launch


class Expected(RuntimeError):
    """An error that is a message to the user."""


class Left(BaseException):
    """Stands for the end of the process."""


def leave(status: int) -> NoReturn:
    raise Left(status)


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "rank", "status", "message"),
    [
        (Expected("the loss is nan"), 0, 1, "error: the loss is nan\n"),
        (Expected("the loss is nan"), 1, 1, ""),  # the main process says it
        (MainProcessError("disk full"), 1, 1, ""),
        (KeyboardInterrupt(), 0, 130, "interrupted; the same command goes on from the last checkpoint\n"),
        (KeyboardInterrupt(), 1, 130, ""),
    ],
)
def test_failures_leave_at_once(
    error: BaseException, rank: int, status: int, message: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left, match=f"^{status}$"):
        launch(raising(error), expected=(Expected,))
    assert capsys.readouterr() == ("", message)


def test_a_value_error_says_where_it_came_from(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left, match="^1$"):
        launch(raising(ValueError("no such folder")), expected=(Expected,))
    line = capsys.readouterr().err
    assert line.startswith("error in process 3: no such folder (") and "test_launch.py:" in line
    assert line.count("\n") == 1


def test_a_surprise_shows_its_whole_origin(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Left, match="^1$"):
        launch(raising(KeyError("key")), expected=(Expected,))
    text = capsys.readouterr().err
    assert text.startswith("Traceback") and "test_launch.py" in text
    assert text.endswith("error in process 0: KeyError: 'key'\n")


@pytest.mark.parametrize("status", [0, EXIT_STOPPED])
def test_an_orderly_end_gives_the_status(status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        launch(lambda: status, expected=())
    assert caught.value.code == status

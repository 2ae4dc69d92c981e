import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import pytest

from engine.processes import links
from engine.processes.links import Links, ProcessLost, connect


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Links]]:
    """The connections of three processes, here of three threads; two strangers knocked first."""
    monkeypatch.setattr(links, "_GREETING_SECONDS", 0.1)
    silent = socket.socket(socket.AF_INET)
    given: SimpleQueue[tuple[int, bytes]] = SimpleQueue()

    def from_main(address: tuple[int, bytes] | None) -> tuple[int, bytes]:
        if address is None:
            return given.get(timeout=20)
        silent.connect(("127.0.0.1", address[0]))
        with socket.create_connection(("localhost", address[0])) as stranger:
            stranger.sendall(bytes(20))
        for _ in range(2):
            given.put(address)
        return address

    result = together([lambda rank=rank: connect(rank, 3, "localhost", from_main) for rank in range(3)])
    yield result
    for one in result:
        one.close()
    silent.close()


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return what each call returned or raised; all run at the same time."""
    answers: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            answers[number] = calls[number]()
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return answers


def test_a_machine_that_cannot_be_reached_is_a_sentence() -> None:
    with socket.create_server(("localhost", 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(ProcessLost, match="no connection to the main process at localhost.* on every port"):
        connect(1, 2, "localhost", lambda address: (closed, bytes(16)))


@pytest.fixture
def remarks(monkeypatch: pytest.MonkeyPatch) -> SimpleQueue[str]:
    said: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(links, "REMARK_AFTER", timedelta(milliseconds=50))
    monkeypatch.setattr(links, "warn", said.put)
    return said


def test_all_meet_and_nobody_remarks_on_a_short_wait(connected: list[Links], capsys: Any) -> None:
    for _ in range(3):
        assert together([lambda one=one: one.meet("work") for one in connected]) == [None] * 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("late", "named"), [(0, ["the main process"]), (1, ["process 1"]), (2, ["process 2"])]
)
def test_the_late_one_is_waited_for_and_named(
    late: int, named: list[str], connected: list[Links], remarks: SimpleQueue[str]
) -> None:
    said: list[str] = []

    def come_late() -> None:
        said.extend(remarks.get(timeout=20) for _ in range(2))
        connected[late].meet("scoring the detections")

    calls = [lambda one=one: one.meet("scoring the detections") for one in connected]
    calls[late] = come_late
    assert together(calls) == [None] * 3
    for sentence in said:
        assert all(name in sentence for name in named) and "scoring the detections" in sentence


@pytest.mark.parametrize("dead", [0, 2])
def test_the_end_of_one_ends_the_wait_of_all(dead: int, connected: list[Links]) -> None:
    def meet(rank: int) -> None:
        try:
            connected[rank].meet("scoring the detections")
        finally:  # an error ends a process
            connected[rank].close()

    calls = [lambda rank=rank: meet(rank) for rank in range(3)]
    calls[dead] = connected[dead].close
    errors = together(calls)
    assert all(isinstance(errors[rank], ProcessLost) for rank in range(3) if rank != dead)
    name = f"process {dead}" if dead else "the main process"
    sentence = str(errors[1 if dead == 0 else 0])
    assert sentence.startswith(f"{name} has ended") and "scoring the detections" in sentence


def test_a_loading_process_does_not_keep_the_connection_of_a_dead_one(connected: list[Links]) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=there.recv, daemon=True)
    child.start()
    connected[0].close()
    with pytest.raises(ProcessLost):
        connected[1].meet("work")
    here.send("leave")
    child.join(20)

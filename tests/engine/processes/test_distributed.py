import os
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn

from engine.processes import distributed, meetings
from engine.processes.distributed import MainProcessError, World
from engine.processes.meetings import Meetings, ProcessLost
from engine.processes.program import exit_with
from engine.training.step import TrainStep
from tests import fault_injection
from tests.engine import tiny
from tests.training_runs import KILLED, assert_same_bits, run, run_function


def test_one_process_needs_no_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    world = distributed.start("cpu")
    assert (world.rank, world.size, world.is_main) == (0, 1, True)
    assert world.sum([1.5, 2]) == [1.5, 2.0]
    assert world.on_main(lambda: "answer") == "answer"
    model = nn.Linear(1, 1)
    assert world.parallel(model) is model
    distributed.stop()


def test_device_is_chosen_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.start("auto").device == torch.device("cpu")
    with pytest.raises(
        ValueError, match="this machine has 0 usable GPUs and 1 processes.*runtime.device=cpu"
    ):
        distributed.start("cuda")
    with pytest.raises(ValueError, match="device is 'tpu', expected one of auto, cpu, cuda"):
        distributed.start("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="this machine has 2 usable GPUs and 3 processes; start at most one"):
        distributed.start("cuda")


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x"}


@pytest.mark.parametrize(
    ("environment", "processes", "threads"),
    [
        ({}, 1, None),  # alone: torch's own choice
        ({}, 2, 3),  # the cores are divided
        ({}, 8, 1),  # more processes than cores
        ({"OMP_NUM_THREADS": "1"}, 2, None),
        (TORCHRUN | {"OMP_NUM_THREADS": "1"}, 2, 3),  # torchrun's default
        (TORCHRUN | {"OMP_NUM_THREADS": "2"}, 2, None),  # the user's wish
    ],
)
def test_cores_are_shared(
    environment: dict[str, str],
    processes: int,
    threads: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"LOCAL_WORLD_SIZE": str(processes)}).items():
        monkeypatch.setenv(name, value)
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(distributed, "available_cores", lambda: 6)
    distributed.start("cpu")
    assert chosen == ([] if threads is None else [threads])
    assert (f"threads per process: {threads} " in capsys.readouterr().out) == bool(chosen)


def collectives(world: World) -> dict[str, Any]:
    """What each process sees of sums, of work on the main process, of its failure, and of shared buffers."""

    def fail() -> None:
        raise FileNotFoundError("no such disk")

    try:
        world.on_main(fail)
        failure = "none"
    except (FileNotFoundError, MainProcessError) as error:
        failure = f"{type(error).__name__}: {error}"
    model = nn.BatchNorm1d(1)
    model(torch.tensor([[world.rank + 1.0], [world.rank + 3.0]]))
    world.share_buffers(model)
    return {
        "sum": world.sum([1.0, world.rank, 2.0**52]),
        "answer": world.on_main(lambda: {"rank": os.environ["RANK"]}),
        "failure": failure,
        "mean": model.running_mean.item(),
    }


def test_collectives(tmp_path: Path) -> None:
    first, second = run_function(collectives, processes=2, folder=tmp_path)
    assert first["sum"] == second["sum"] == [2.0, 1.0, 2.0**53]
    assert first["answer"] == second["answer"] == {"rank": "0"}
    assert first["failure"] == "FileNotFoundError: no such disk"
    assert second["failure"] == "MainProcessError: FileNotFoundError: no such disk"
    assert first["mean"] == second["mean"] == pytest.approx(0.2)


def wait_for_the_late(world: World, folder: str) -> dict[str, Any]:
    """Be late for work on the main process, a gathering and an evaluation, by turns.

    Who is late comes after a process has said twice that it waits, later than a collective waits.
    """
    said: list[str] = []

    def keep(text: str) -> None:
        said.append(text)
        Path(folder, f"remark{len(said)}_of_{world.rank}").touch()

    def be_late() -> str:
        fault_injection.wait_for(Path(folder, f"remark2_of_{int(world.is_main)}"))
        return "index"

    mock.patch.object(meetings, "warn", keep).start()
    world.meet("the start")
    fault_injection.shorten_timeouts()
    meetings.REMARK_AFTER /= 2  # so that a second remark comes after the timeout too
    answer = world.on_main(be_late, "building the index")
    if world.rank == 2:
        be_late()
    gathered = world.gather(world.rank)
    return {"answer": answer, "gathered": gathered, "said": said}


def test_late_processes_are_waited_for_longer_than_a_collective_waits(tmp_path: Path) -> None:
    answers = run_function(wait_for_the_late, str(tmp_path), processes=3, folder=tmp_path / "logs")
    assert [answer["answer"] for answer in answers] == ["index"] * 3
    assert answers[0]["gathered"] == [0, 1, 2]
    said = [answer["said"] for answer in answers]
    assert all("for other processes" in text and "gathering" in text for text in said[0])
    assert all("for the main process" in text and "building the index" in text for text in said[1])
    assert (len(said[0]) >= 2, len(said[1]) >= 2, len(said[2])) == (True, True, 0)  # one process says it


def die_while_others_wait(rank: int, *, victim: int) -> None:
    """Kill one process that the others wait for, in place of the program."""
    world = distributed.start("cpu")

    def main() -> int:
        world.meet("the start")  # all are connected
        if rank == victim:
            fault_injection.die()
        world.meet("scoring the detections")
        return 0

    exit_with(main)


@pytest.mark.parametrize("victim", [0, 2])
def test_a_process_that_dies_is_not_waited_for(victim: int, tmp_path: Path) -> None:
    fault = partial(die_while_others_wait, victim=victim)
    outcome = run(tmp_path, [], processes=3, fault=fault, timeout=60)
    assert outcome.statuses == [KILLED if rank == victim else 1 for rank in range(3)]
    assert "another process has ended" in outcome.output and "scoring the detections" in outcome.output
    assert "Traceback" not in outcome.output


def test_processes_that_gloo_cannot_connect_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nccl it is the first to need the network of the cluster."""

    def refuse(**named: Any) -> None:
        raise RuntimeError("timed out connecting: SO_ERROR: Connection refused, remote=[10.0.0.1]:29500")

    monkeypatch.setattr(dist, "new_group", refuse)
    with pytest.raises(ProcessLost, match="10.0.0.1.*GLOO_SOCKET_IFNAME"):
        Meetings()


def leave(world: World) -> dict[str, list[str]]:
    """The threads of the process group before and after it is left, with a DDP module in a cycle."""
    model = world.parallel(nn.Linear(1, 1))
    model.itself = [model]
    del model
    before = group_threads()
    distributed.stop()
    return {"before": before, "after": group_threads()}


def group_threads() -> list[str]:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc on Linux only")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that lives until the interpreter ends may abort it, and torchrun then reports a failed run."""
    for answer in run_function(leave, processes=2, folder=tmp_path):
        assert answer["before"] and not answer["after"]


def train(
    world: World,
    normalized: bool,
    first: int,
    steps: int,
    saved: dict[str, Any] | None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Take some steps of the tiny task, from a saved state if there is one; return the state after them."""
    state = tiny.state(tiny.network(normalized=normalized, dropout=0.0), phase1_steps=2)
    if compiled:
        state.model.compile(backend="aot_eager")
    task = tiny.Task(world, accumulation=tiny.GLOBAL_BATCH // world.size // (1 if world.size == 4 else 2))
    take_step = TrainStep(
        state, world, compute_losses=task.losses, accumulation=task.accumulation, clip_grad_norm=0.0, seed=0
    )
    if saved is not None:
        state.load_state_dict(saved)
    results = []
    for step in range(first, first + steps):
        micro_batches = next(task.batches(step // tiny.STEPS_PER_EPOCH, step % tiny.STEPS_PER_EPOCH))
        asked = world.rank == world.size - 1 and step == first + 1
        result = take_step(micro_batches, 0.1, lambda asked=asked: asked)
        results.append((result.loss, result.stop_requested, result.realigned))
    return {"state": state.state_dict(), "results": results}


def tensors(answer: dict[str, Any]) -> dict[str, torch.Tensor]:
    return answer["state"]["model"]


@pytest.mark.parametrize("compiled", [False, True])
def test_two_processes_compute_what_one_does(compiled: bool, tmp_path: Path) -> None:
    alone = train(World(), False, 0, 4, None)
    ranks = run_function(train, False, 0, 4, None, compiled, processes=2, folder=tmp_path)
    for answer in ranks:
        for (loss, _, realigned), (expected, _, also_realigned) in zip(
            answer["results"], alone["results"], strict=True
        ):
            assert loss == pytest.approx(expected, rel=1e-5) and realigned == also_realigned
        for name, tensor in tensors(alone).items():
            torch.testing.assert_close(tensors(answer)[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    # all processes take the same decisions: the wish to stop came from the last one only
    assert [result[1:] for result in ranks[0]["results"]] == [
        (False, False),
        (True, True),
        (False, False),
        (False, False),
    ]
    assert ranks[0]["results"] == ranks[1]["results"]


def resume(world: World) -> dict[str, Any]:
    """Train five steps at once, and in two parts of which the second starts from the first one's state."""
    whole = train(world, True, 0, 5, None)
    before = train(world, True, 0, 3, None)
    saved = world.on_main(lambda: before["state"])
    after = train(world, True, 3, 2, saved)
    return {"whole": whole["state"]["model"], "resumed": after["state"]["model"]}


def test_four_processes_resume_to_the_bit(tmp_path: Path) -> None:
    """From three on, gloo's order of summation depends on where a gradient lies in its bucket."""
    answers = run_function(resume, processes=4, folder=tmp_path)
    assert_same_bits(answers[0]["resumed"], answers[0]["whole"])
    parameters = [name for name, _ in tiny.network().named_parameters()]
    statistics = [f"2.{name}" for name in ("running_mean", "running_std")]
    for answer in answers[1:]:
        for name in parameters + statistics:
            assert torch.equal(answer["whole"][name], answers[0]["whole"][name]), (
                f"{name} differs between ranks"
            )

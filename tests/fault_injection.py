"""Faults for training runs: each makes something go wrong in its process at a chosen moment."""

import functools
import os
import signal
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from engine.files import write_text_atomically
from engine.processes import meetings
from engine.processes.distributed import World
from engine.tasks.classification import Classification
from engine.tasks.detection import Detection
from engine.training import loop
from engine.training.step import TrainStep


def before(owner: Any, name: str, calls: int, fault: Callable[[], None]) -> None:
    """Call `fault` just before the n-th call (from 1) of a function of a module or class."""
    function = getattr(owner, name)
    count = 0

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            fault()
        return function(*arguments, **named)

    setattr(owner, name, wrapper)


def die() -> None:
    """End this process as the kernel does when memory runs out: nothing in it notices."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_step(rank: int, *, victim: int, step: int) -> None:
    """Kill one process before its n-th training step."""
    if rank == victim:
        before(TrainStep, "__call__", step, die)


def die_in_evaluation(rank: int, *, victim: int, evaluation: int) -> None:
    """Kill one process before its n-th evaluation; others may be ahead of it."""
    if rank == victim:
        before(loop, "evaluate_all", evaluation, die)


def die_in_rename(rank: int, *, rename: int) -> None:
    """Kill the main process before its n-th renaming of a file, with the new one written."""
    if rank == 0:
        before(os, "replace", rename, die)


def signal_torchrun_in_step(rank: int, *, step: int, number: int) -> None:
    """Signal torchrun, which passes it on to all processes, before the n-th training step of one."""
    if rank == 1:
        before(TrainStep, "__call__", step, lambda: os.kill(os.getppid(), number))


def kill_torchrun() -> None:
    """Kill torchrun as the kernel does when memory runs out, then do nothing more: the others wait."""
    os.kill(os.getppid(), signal.SIGKILL)
    while True:
        signal.pause()


def kill_torchrun_in_step(rank: int, *, step: int) -> None:
    """Kill torchrun before the n-th training step of one process."""
    if rank == 1:
        before(TrainStep, "__call__", step, kill_torchrun)


def kill_torchrun_in_rendezvous(rank: int, *, mark: Path) -> None:
    """Kill torchrun while one process waits in the rendezvous; it makes the file `mark` just before."""

    def kill_when_the_other_waits() -> None:
        wait_for(mark)
        kill_torchrun()

    before(dist, "init_process_group", 1, kill_when_the_other_waits if rank == 1 else mark.touch)


def signal_in_step(rank: int, *, step: int) -> None:
    """Signal one process before its n-th training step."""
    if rank == 1:
        before(TrainStep, "__call__", step, lambda: os.kill(os.getpid(), signal.SIGUSR1))


def shorten_timeouts() -> None:
    """Let collectives give up after a second, and processes that wait say so somewhat later."""
    c10d = dist.distributed_c10d
    set_timeout = c10d.set_timeout if hasattr(c10d, "set_timeout") else c10d._set_pg_timeout
    set_timeout(timedelta(seconds=1))
    meetings.REMARK_AFTER = timedelta(seconds=1.5)


def wait_for(file: Path) -> str:
    """Return the content of a file as soon as it is there."""
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file} in time"
        time.sleep(0.02)
    return file.read_text()


def score_until_missed(rank: int, *, folder: Path) -> None:
    """Let the main process score detections until another one has said that it waits."""
    remark = folder / "remark"
    mock.patch.object(meetings, "warn", partial(write_text_atomically, remark)).start()
    before(Detection, "_score", 1, lambda: print(wait_for(remark)))
    before(World, "gather", 1, shorten_timeouts)


def nan_loss(rank: int, *, micro_batch: int) -> None:
    """Make the loss of one process's n-th micro-batch NaN."""
    if rank != 1:
        return
    compute, count = Classification.losses, 0

    def losses(task: Classification, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        factor = float("nan") if count == micro_batch else 1.0
        return {name: term * factor for name, term in compute(task, model, batch).items()}

    Classification.losses = losses  # type: ignore[method-assign]


def fail_sync(number: int, *, of_folders: bool) -> None:
    """Let os.fsync fail with an error number, as a file system without it does."""
    sync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))
        sync(handle)

    os.fsync = refuse


def fail_opening_folders(number: int) -> None:
    """Let os.open of a folder fail with an error number, as some FUSE mounts do."""
    opener = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if os.path.isdir(path):
            raise OSError(number, os.strerror(number), path)
        return opener(path, *arguments, **named)

    mock.patch.object(os, "open", refuse).start()

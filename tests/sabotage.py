"""Misfortunes for training runs: each makes something go wrong in its process at a chosen moment."""

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from engine import loop
from engine.classification import Classification
from engine.train_step import TrainStep


def before(owner: Any, name: str, calls: int, misfortune: Callable[[], None]) -> None:
    """Let `misfortune` happen just before the n-th call (from 1) of a function of a module or class."""
    function = getattr(owner, name)
    count = 0

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            misfortune()
        return function(*arguments, **named)

    setattr(owner, name, wrapper)


def die() -> None:
    """End this process as the kernel does when memory runs out: nothing in it notices."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_step(rank: int, *, victim: int, step: int) -> None:
    """One process dies before its n-th training step."""
    if rank == victim:
        before(TrainStep, "__call__", step, die)


def die_in_evaluation(rank: int, *, victim: int, evaluation: int) -> None:
    """One process dies before its n-th evaluation; others may be ahead of it."""
    if rank == victim:
        before(loop, "evaluate_all", evaluation, die)


def die_in_rename(rank: int, *, rename: int) -> None:
    """The main process dies before its n-th renaming of a file, with the new one written."""
    if rank == 0:
        before(os, "replace", rename, die)


def signal_torchrun_in_step(rank: int, *, step: int, number: int) -> None:
    """One process signals torchrun, which passes it on to all, before its n-th training step."""
    if rank == 1:
        before(TrainStep, "__call__", step, lambda: os.kill(os.getppid(), number))


def lose_a_number_in_step(rank: int, *, micro_batch: int) -> None:
    """The loss of one process's n-th micro-batch is not a number."""
    if rank != 1:
        return
    compute, count = Classification.loss, 0

    def loss(task: Classification, model: Any, batch: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return compute(task, model, batch) * (float("nan") if count == micro_batch else 1.0)

    Classification.loss = loss

"""The processes of one run: one, or several that torchrun starts, joined by nccl on GPUs and gloo on CPUs."""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.processes.meetings import Meetings
from engine.records.console import say
from pwlu.suggestion import expected_one_of

T = TypeVar("T")

# Bounds the wait for a process that hangs. Where one may be late for a good reason, all meet before.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


class MainProcessError(RuntimeError):
    """Work on the main process failed; raised on the others, while the main process has the cause."""


@dataclass(frozen=True)
class World:
    """One process's place among those of its run; by default it is the only one."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = torch.device("cpu")
    meetings: Meetings | None = None  # with the other processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sums over all processes, in float64 (counts are exact up to 2**53)."""
        return self.add_up(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Replace a tensor's elements by their sums over all processes, without waiting for a GPU."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def meet(self, what: str) -> None:
        """Wait for all processes, as long as it takes; `what` they wait for is said after some minutes.

        For what may take much longer on one process than on another: a collective gives up after
        COLLECTIVE_TIMEOUT. Raises ProcessLost if one has ended.
        """
        if self.meetings is not None:
            self.meetings.meet(what)

    def on_main(self, work: Callable[[], T], what: str = "work on the main process") -> T:
        """Run `work` on the main process only; its result, or its failure, reaches every process.

        The others wait as long as it takes, and say for `what`. Raises what `work` raises on the main
        process, MainProcessError on the others, and ProcessLost if a process has ended.
        """
        if self.size == 1:
            return work()
        failure: Exception | None = None
        answer: list[object] = [None, None]
        if self.is_main:
            try:
                answer[0] = work()
            except Exception as error:
                failure = error
                answer[1] = f"{type(error).__name__}: {error}"
        self.meet(what)
        dist.broadcast_object_list(answer, src=0, device=self.device)
        result, reason = answer
        if failure is not None:
            raise failure
        if reason is not None:
            raise MainProcessError(str(reason))
        return cast(T, result)

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, on the main process; an empty list on the others."""
        if self.size == 1:
            return [value]
        self.meet("gathering results")
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0)
        return values or []

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the main process's buffers, as DDP does before a training forward."""
        if self.size > 1:
            self.meet("evaluation")
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap the model so that gradients are averaged over all processes; alone it stays as it is.

        Every parameter must take part in every step.
        """
        if self.size == 1:
            return model
        # Not static_graph=True: it fails where gradients are accumulated (no_sync), and spares a search for
        # unused parameters, which is off anyway.
        if self.device.type == "cuda":
            return DistributedDataParallel(model, device_ids=[self.device], gradient_as_bucket_view=True)
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(self.size, _average_by_rank)
        return wrapped


def _average_by_rank(size: int, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Average a bucket of gradients over all processes, added in the order of the ranks."""
    # gloo's all_reduce adds in an order that depends on where a gradient lies in its bucket, and DDP lays its
    # buckets out anew after the first backward. A resumed run would drift from the uninterrupted one.
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(size)]

    def average(_: torch.futures.Future[Any]) -> torch.Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total.div_(size)

    return dist.all_gather(parts, own, async_op=True).get_future().then(average)


def start(device: str = "auto") -> World:
    """Join the processes that torchrun started, or be the only one.

    `device` is "auto" (a GPU where there is one), "cpu" or "cuda". Raises ValueError for "cuda" where there
    is none, and for more processes on this machine than GPUs.
    """
    rank, local_rank = _environment("RANK", 0), _environment("LOCAL_RANK", 0)
    size, local_size = _environment("WORLD_SIZE", 1), _environment("LOCAL_WORLD_SIZE", 1)
    chosen = _choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    else:
        _share_cores(rank, local_size)
    meetings = None
    if size > 1:
        backend, bound_to = ("nccl", chosen) if chosen.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, device_id=bound_to)
        meetings = Meetings()
    return World(rank, local_rank, size, local_size, chosen, meetings)


def available_cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stop() -> None:
    """Leave the process group, if there is one, and end its threads."""
    if dist.is_initialized():
        dist.destroy_process_group()
        # A thread of the group that outlives the interpreter may abort it, and a complete run would count as
        # failed. The group lives as long as a DDP module in a reference cycle does.
        gc.collect()


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _choose_device(device: str, local_rank: int) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(expected_one_of("device", device, ("auto", "cpu", "cuda")))
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and available == 0):
        return torch.device("cpu")
    local_size = max(local_rank + 1, _environment("LOCAL_WORLD_SIZE", 1))
    if local_size > available:
        raise ValueError(
            f"device: this machine has {available} usable GPUs and {local_size} processes; start at most one "
            "process per GPU (torchrun --nproc-per-node), or pass runtime.device=cpu"
        )
    return torch.device("cuda", local_rank)


def _share_cores(rank: int, local_size: int) -> None:
    """Divide this machine's cores among its CPU processes, unless OMP_NUM_THREADS says how many threads."""
    wish = os.environ.get("OMP_NUM_THREADS")
    if wish == "1" and "TORCHELASTIC_RUN_ID" in os.environ:  # what torchrun sets where nothing is set
        wish = None
    if local_size == 1 or wish is not None:
        return
    cores = available_cores()
    threads = max(1, cores // local_size)
    torch.set_num_threads(threads)
    if rank == 0:
        say(
            f"{local_size} CPU processes share {cores} cores, threads per process: {threads} "
            "(OMP_NUM_THREADS=2 or more changes that)"
        )

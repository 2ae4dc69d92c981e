"""The processes of one run: which one am I, on which device, and the few things all of them do together.

`python train_imagenet.py` is one process and needs no set-up. Under `torchrun` there are several, joined by
nccl where they compute on GPUs and by gloo where they compute on CPUs.
"""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

# A process that died is noticed at once (its connection closes); this bounds the wait for one that hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class MainProcessError(RuntimeError):
    """Raised on every other process when work on the main process failed; the main process has the cause."""


@dataclass(frozen=True)
class World:
    """The processes of one run, seen from one of them; the defaults are those of a single process."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """True on the one process that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the element-wise sums over all processes, in float64 (counts are exact up to 2**53)."""
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(totals)
        return totals.tolist()

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on the main process only; its result, or its failure, reaches every process.

        Raises what `work` raises on the main process, and MainProcessError on the others.
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
        dist.broadcast_object_list(answer, src=0, device=self.device)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise MainProcessError(str(answer[1]))
        return answer[0]  # type: ignore[return-value]  # the main process's T

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, on the main process; an empty list on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0)
        return values or []

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the main process's buffers, as DDP does before a training forward."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap the model so that gradients are averaged over all processes; alone it stays as it is.

        DDP usually lays its gradient buckets out anew after the first backward. A resumed run would then add
        up the gradients of three or more processes in another order than the uninterrupted one at its first
        step, and drift from it in the last bits. With `find_unused_parameters` the layout stays as it is.
        """
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        wrapped = _WithUnusedParameter(model, self.device)
        return DistributedDataParallel(wrapped, device_ids=devices, find_unused_parameters=True)


class _WithUnusedParameter(nn.Module):
    """A model beside one parameter that takes no part: DDP warns where it finds none to look for."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        return self.model(*inputs, **named_inputs)


def start(device: str = "auto") -> World:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        ValueError: "cuda" where there is none, or more processes on this machine than GPUs.
    """
    rank, local_rank = _environment("RANK", 0), _environment("LOCAL_RANK", 0)
    size, local_size = _environment("WORLD_SIZE", 1), _environment("LOCAL_WORLD_SIZE", 1)
    world = World(rank, local_rank, size, local_size, _choose_device(device, local_rank))
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    else:
        _share_cores(local_size)
    if size > 1:
        backend, bound_to = ("nccl", world.device) if world.device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, device_id=bound_to)
    return world


def available_cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def stop() -> None:
    """Leave the process group, if there is one, and end its threads.

    The group lives on as long as something refers to it: a DDP module that is part of a reference cycle does
    until the cycle is collected. Its threads must not outlive the interpreter: one that still lets go of the
    tensors of the last collective then aborts the process, and a run that is complete would count as failed.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _choose_device(device: str, local_rank: int) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {device!r}")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and available == 0):
        return torch.device("cpu")
    if local_rank >= available:
        raise ValueError(
            f"device: process {local_rank} of this machine found {available} usable GPUs; start at most one "
            "process per GPU (torchrun --nproc-per-node), or pass runtime.device=cpu"
        )
    return torch.device("cuda", local_rank)


def _share_cores(local_size: int) -> None:
    """Divide the cores among the CPU processes of this machine, unless the user set OMP_NUM_THREADS."""
    if local_size > 1 and not _user_chose_threads():
        torch.set_num_threads(max(1, available_cores() // local_size))


def _user_chose_threads() -> bool:
    """Return whether OMP_NUM_THREADS is the user's wish.

    Where it is not set torchrun sets it to 1 for its processes, which would leave most cores idle. The
    environment that torchrun itself was started with tells the two apart. Where that cannot be read (it can
    on Linux), a 1 is taken for torchrun's.
    """
    value = os.environ.get("OMP_NUM_THREADS")
    if value is None or "TORCHELASTIC_RUN_ID" not in os.environ:
        return value is not None
    try:
        environment = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return value != "1"
    return any(entry.startswith(b"OMP_NUM_THREADS=") for entry in environment.split(b"\0"))

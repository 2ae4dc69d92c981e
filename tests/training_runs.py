"""Training programs run as users run them: every process of a run is a real one, with torchrun's environment.

The processes are forked from one that has imported everything already: a run starts in less than a second.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.processes import distributed
from engine.processes.program import exit_with
from engine.records.record import read_records

REPOSITORY = Path(__file__).parent.parent
KILLED = -signal.SIGKILL

# Small enough for seconds, with everything that a resume could get wrong: 3 steps per epoch, 4 epochs, the
# realignment in the middle of the second, several micro-batches per step, averaged weights.
SETTINGS = """
seed: 3
epochs: 4
phase1_epochs: 1.5
global_batch_size: 8
model: {name: test_resnet}
activation: {name: pwlu, num_intervals: 6}
data: {kind: imagefolder, workers: 0, image_size_px: 32}
optimizer: {peak_lr: 0.05, weight_decay: 1e-4, ema_decay: 0.9}
schedule: {warmup_epochs: 1}
runtime:
  {device: cpu, device_batch_size: 2, log_every_steps: 1, checkpoint_every_steps: 2, plot_every_epochs: 4}
"""

# The same for detectors: 3 steps per epoch, the realignment in the second, an evaluation and the end in the
# middle of others.
COCO_SETTINGS = """
seed: 3
steps: 8
phase1_epochs: 1.4
global_batch_size: 4
model:
  {architecture: mask_rcnn, backbone: test_resnet, pyramid_channels: 8, smallest_anchor_px: 8,
   region_samples: 16}
activation: {name: pwlu, num_intervals: 6}
data: {workers: 0, shorter_side_px: 48, longer_side_px: 64}
optimizer: {peak_lr: 0.02, weight_decay: 1e-4, ema_decay: 0.9}
schedule: {warmup_steps: 2, milestones_steps: [5]}
runtime:
  {device: cpu, device_batch_size: 2, log_every_steps: 1, checkpoint_every_steps: 2, eval_every_steps: 5,
   plot_every_steps: 8}
"""


@dataclass(frozen=True)
class Outcome:
    """How the processes of a run ended, by rank, and what they printed."""

    statuses: list[int]
    outputs: list[str]

    @property
    def output(self) -> str:
        """What all of them printed."""
        return "".join(self.outputs)


def run(
    folder: Path,
    arguments: list[str],
    *,
    processes: int = 1,
    fault: Callable[[int], None] | None = None,
    timeout: float = 120,
    program: str = "train_imagenet",
) -> Outcome:
    """Run a training program with these arguments; logs go to `folder`.

    `fault` is called with the rank in every process before the program starts, to make something go wrong
    later; it must be a function of a module, or a functools.partial of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"rank{rank}.log" for rank in range(processes)]
    port = _free_port()
    started = [
        _context().Process(target=_process, args=(program, rank, processes, port, arguments, str(log), fault))
        for rank, log in enumerate(logs)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout)
    hanging = [rank for rank, process in enumerate(started) if process.is_alive()]
    for rank in hanging:
        started[rank].kill()
        started[rank].join()
    outputs = [log.read_text() for log in logs]
    assert not hanging, f"processes {hanging} were still running after {timeout} s:\n" + "\n".join(outputs)
    return Outcome([process.exitcode or 0 for process in started], outputs)


def run_function(function: Callable[..., Any], *arguments: Any, processes: int, folder: Path) -> list[Any]:
    """Call `function(world, *arguments)` in several joined processes; return what each returned, by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = [folder / f"answer{rank}.pt" for rank in range(processes)]
    outcome = run(
        folder,
        [],
        processes=processes,
        fault=_Call(function, arguments, tuple(map(str, answers))),
    )
    assert outcome.statuses == [0] * processes, outcome.output
    return [torch.load(answer, weights_only=True) for answer in answers]


@dataclass(frozen=True)
class _Call:
    """Instead of the program: joins the processes, calls a function, keeps its answer, leaves."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    answers: tuple[str, ...]

    def __call__(self, rank: int) -> None:
        world = distributed.start("cpu")
        torch.save(self.function(world, *self.arguments), self.answers[rank])
        distributed.stop()
        sys.exit(0)


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.fault_injection", "tests.training_runs", "train_imagenet", "train_coco", "sklearn.datasets"]
    )
    return context


def _process(
    program: str,
    rank: int,
    processes: int,
    port: int,
    arguments: list[str],
    log: str,
    fault: Callable[[int], None] | None,
) -> None:
    """Become one process of a run."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    multiprocessing.set_start_method("fork", force=True)  # the default, as in a program that nobody forked
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(value) for name, value in place.items()} | {"OMP_NUM_THREADS": "1"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    sys.argv = [f"{program}.py", *arguments]
    if fault is not None:
        fault(rank)
    exit_with(importlib.import_module(program).main)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def records(folder: Path) -> list[dict[str, Any]]:
    """Return a run's records without what depends on the machine's speed."""
    return [
        {name: value for name, value in entry.items() if name not in ("images_per_second", "data_wait")}
        for entry in read_records(folder / "metrics.jsonl")
    ]


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    """Return all tensors of a run's checkpoint by path: weights, averaged weights, momentum."""
    return dict(_tensors(torch.load(folder / "checkpoints" / name, weights_only=True)))


def _tensors(value: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in _tensors(part, f"{path}/{key}")]
    return []


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Fail, naming the tensors, unless both have the same tensors, equal to the last bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ: {different[:5]}"

"""From the command line to training or evaluation in all processes of a run."""

from collections.abc import Callable
from pathlib import Path

from engine.processes import distributed
from engine.processes.distributed import World
from engine.processes.preemption import StopRequest


def run(
    device: str,
    checkpoint: Path | None,
    *,
    train: Callable[[World, StopRequest], int],
    evaluate: Callable[[World, StopRequest, Path], int],
) -> int:
    """Join the processes, evaluate the checkpoint if there is one, else train; return the exit status."""
    world = distributed.start(device)
    with StopRequest() as stop:
        status = evaluate(world, stop, checkpoint) if checkpoint else train(world, stop)
    distributed.stop()
    return status

"""What both training programs do with their command line."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import nn

from engine.config.experiment import experiment_of
from engine.config.load import load_config
from engine.config.schema import C, Schema
from engine.data.classes import Classes, classes_of_checkpoint
from engine.processes.distributed import World
from engine.processes.program import EXIT_DONE, EXIT_STOPPED, joined_processes, parse_arguments
from engine.runs.folder import RunFolder
from engine.runs.run import Run
from engine.training.loop import Task
from pwlu import ReplacementReport

T = TypeVar("T", bound=Task)


def train_or_evaluate(
    description: str | None,
    argv: Sequence[str] | None,
    schema: Schema[C],
    build: Callable[[C, World, Classes | None], tuple[T, nn.Module, ReplacementReport]],
    train: Callable[[C, Run, T, nn.Module, ReplacementReport], bool],
) -> int:
    """Train, or evaluate a checkpoint, as the command line says; return the exit status.

    `build` opens the data and builds the model, the same on every process; it gets the classes of the network
    that is evaluated. `train` returns False if a signal stopped it. `argv` None stands for this process's own
    command line.
    """
    arguments = parse_arguments(description, argv)
    config = load_config(arguments.config, arguments.overrides, schema)
    with joined_processes(config.runtime.device) as (world, stop):
        run = Run(RunFolder(config.output), experiment_of(config), world, stop)
        if arguments.checkpoint is None:
            if run.is_finished():
                return EXIT_DONE
            world.on_main(run.folder.require_writable, "opening the run folder")  # before the data are opened
            done = train(config, run, *build(config, world, None))
        else:
            checkpoint = run.read_trained(arguments.checkpoint)
            trained = classes_of_checkpoint(checkpoint, str(arguments.checkpoint))
            task, model, _ = build(config, world, trained)
            done = run.evaluate(arguments.checkpoint, checkpoint, task, model)
    return EXIT_DONE if done else EXIT_STOPPED

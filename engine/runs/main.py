"""What both training programs do with their command line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from engine.config.experiment import experiment_of
from engine.config.load import ConfigError, load_config
from engine.config.schema import C, RunConfig, Schema
from engine.data.classes import Classes, classes_of_checkpoint
from engine.processes.distributed import World
from engine.processes.program import EXIT_DONE, EXIT_STOPPED, joined_processes, parse_arguments
from engine.records.console import warn_on_main
from engine.runs.folder import RunFolder
from engine.runs.run import Run
from engine.training.loop import Task
from engine.training.origin import Origin
from engine.training.starting_weights import StartingWeights, read_starting_weights

T = TypeVar("T", bound=Task)


def train_or_evaluate(
    description: str | None,
    argv: Sequence[str] | None,
    schema: Schema[C],
    build: Callable[[C, World, Classes | None, StartingWeights | None], tuple[T, nn.Module, Origin]],
    train: Callable[[C, Run, T, nn.Module, Origin], bool],
) -> int:
    """Train, or evaluate a checkpoint, as the command line says; return the exit status.

    `build` opens the data and builds the model, the same on every process; it gets the classes of the network
    that is evaluated, or the weights that a training starts from. `train` returns False if a signal stopped
    it. `argv` None stands for this process's own command line.
    """
    arguments = parse_arguments(description, argv)
    config = load_config(arguments.config, arguments.overrides, schema)
    with joined_processes(config.runtime.device) as (world, stop):
        folder = RunFolder(config.output)
        start, digest = _starting_weights(arguments.init_from, config, folder, world)
        run = Run(folder, experiment_of(config, digest and f"sha256:{digest[:16]}"), world, stop, start)
        if arguments.checkpoint is None:
            if run.is_finished():
                return EXIT_DONE
            world.on_main(run.folder.require_writable, "opening the run folder")  # before the data are opened
            done = train(config, run, *build(config, world, None, start))
        else:
            checkpoint = run.read_trained(arguments.checkpoint)
            trained = classes_of_checkpoint(checkpoint, str(arguments.checkpoint))
            task, model, _ = build(config, world, trained, None)
            done = run.evaluate(arguments.checkpoint, checkpoint, task, model)
    return EXIT_DONE if done else EXIT_STOPPED


def _starting_weights(
    path: Path | None, config: RunConfig, folder: RunFolder, world: World
) -> tuple[StartingWeights | None, str | None]:
    """Return the weights to start from, if any, and the digest of their file."""
    if path is None:
        return None, None
    if experiment_of(config).values["model.pretrained"]:
        raise ConfigError(
            f"--init-from {path} and model.pretrained=true each give the weights; leave one out"
        )
    digest = world.on_main(lambda: folder.digest_of_lost(path), "reading the run folder")
    if digest is not None:
        warn_on_main(f"--init-from {path}: no such file now; the run goes on from its own checkpoint")
        return None, digest
    start = world.on_main(lambda: read_starting_weights(path), "reading the weights to start from")
    return start, start.digest

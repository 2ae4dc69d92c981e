"""A whole training run in its folder, for any task: begin or go on, train, leave a mark of how it ended."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from engine.processes.distributed import World
from engine.processes.preemption import StopRequest
from engine.records.console import metrics_line, say
from engine.records.record import EvaluationFiles
from engine.runs.claim import claimed
from engine.runs.folder import Identity, RunFolder
from engine.runs.manifest import describe_start
from engine.runs.reporting import Reporting
from engine.training.checkpoint import load_weights, read_checkpoint, require_same
from engine.training.ema import Ema
from engine.training.loop import Loop, Plan, Task, TrainingDiverged, evaluate_all
from engine.training.state import TrainingState
from engine.training.step import TrainStep


def is_finished(folder: RunFolder, experiment: Mapping[str, Any], world: World) -> bool:
    """Return whether the run in the folder is complete, and say so.

    Raises:
        CheckpointError: a run of another experiment is complete there.
    """
    metrics = world.on_main(lambda: folder.final_metrics(experiment))
    if metrics is not None and world.is_main:
        say(f"{folder.path}: this run is finished: {metrics_line(metrics)}")
    return metrics is not None


def run_training(
    *,
    folder: RunFolder,
    identity: Identity,
    plan: Plan,
    task: Task,
    state: TrainingState,
    learning_rate: Callable[[int], float],
    clip_grad_norm: float,
    seed: int,
    world: World,
    stop: StopRequest,
    announcement: str,
    components: Mapping[str, Any] | None = None,
) -> bool:
    """Train from the folder's last checkpoint, if it has one, to the end (True) or to a signal (False).

    `announcement` is printed when it is known that the folder is fit for the run. `components` goes into the
    manifest: versions of what only this kind of run uses.

    Raises:
        CheckpointError: the folder is in use, or of another experiment, or its checkpoints are no good.
        TrainingDiverged: the loss became NaN or infinite.
    """
    with contextlib.ExitStack() as held:
        world.on_main(lambda: held.enter_context(claimed(folder.path, _warn)))
        resumed = _resume(folder, identity, state, world)
        start = describe_start(
            step=state.step, world_size=world.size, device=world.device, components=components or {}
        )
        world.on_main(lambda: folder.add_start(start))
        reporting = Reporting(folder, state.model, plan, resume_step=state.step, active=world.is_main)
        loop = Loop(
            plan=plan,
            task=task,
            state=state,
            take_step=TrainStep(
                state,
                world,
                compute_losses=task.losses,
                accumulation=task.accumulation,
                clip_grad_norm=clip_grad_norm,
                seed=seed,
            ),
            learning_rate=learning_rate,
            world=world,
            stop=stop,
            checkpoints=folder.checkpoints,
            identity=asdict(identity),
            listeners=reporting.listeners,
            plot=reporting.plot,
        )
        if world.is_main:
            say(announcement)
            say(f"resuming at step {state.step}" if resumed else "starting at step 0")
        with contextlib.closing(reporting):
            finished = _run_loop(loop, resumed, folder)
        world.on_main(lambda: _conclude(folder, finished, loop, stop))
        return finished


def evaluate_checkpoint(
    path: Path,
    *,
    network: Mapping[str, Any],
    task: Task,
    model: nn.Module,
    world: World,
    stop: StopRequest,
    folder: RunFolder,
) -> dict[str, Any] | None:
    """Evaluate a checkpoint's weights, and its averaged ones if any, and print a line of JSON.

    `network` are the settings of the experiment that the checkpoint must share, by key. Pictures and results
    that the evaluation has go to the run folder's place for this checkpoint. Returns what is printed, or None
    if a signal asked for a stop.

    Raises:
        CheckpointError: the file cannot be read, is no checkpoint, or is one of another network.
    """
    checkpoint = world.on_main(lambda: read_checkpoint(path))
    require_same({key: checkpoint["experiment"].get(key) for key in network}, network, path)
    load_weights(model, checkpoint["model"])
    ema = None
    if checkpoint["ema"] is not None:
        ema = Ema(model, decay=0.0)
        ema.load_state_dict(checkpoint["ema"])
    evaluation = evaluate_all(task, model, ema, world, lambda: stop.requested)
    if evaluation is None:
        return None
    result = {"checkpoint": str(path), "step": checkpoint["step"], **evaluation.metrics}
    files = EvaluationFiles(folder.evaluation_of(path))
    world.on_main(lambda: files.write(evaluation))
    if world.is_main:
        say(json.dumps(result))
    return result


def _resume(folder: RunFolder, identity: Identity, state: TrainingState, world: World) -> bool:
    """Take over the folder's last checkpoint, if there is one.

    The main process alone reads it, so that no other machine needs to see the folder.
    """
    checkpoint = world.on_main(lambda: folder.open(identity, _warn))
    if checkpoint is not None:
        state.load_state_dict(checkpoint)
    return checkpoint is not None


def _run_loop(loop: Loop, resumed: bool, folder: RunFolder) -> bool:
    """Run the loop; of a divergence, which every process raises, the folder keeps a mark."""
    try:
        return loop.run(resumed)
    except TrainingDiverged as error:
        loop.world.on_main(partial(folder.mark_diverged, error.step, error.lr))
        raise


def _warn(text: str) -> None:
    say(f"WARNING: {text}")


def _conclude(folder: RunFolder, finished: bool, loop: Loop, stop: StopRequest) -> None:
    if finished:
        folder.mark_finished(loop.metrics)
        best = dict(loop.state.best)
        step = best.pop("step")
        say(f"finished: {metrics_line(loop.metrics)}")
        say(f"best: {metrics_line(best)} at step {step:g}")
        say(f"weights: {folder.checkpoints.best} (best), {folder.checkpoints.last} (last)")
        say(f"records: {folder.metrics}; to look at them: tensorboard --logdir {folder.tensorboard}")
        if folder.curves.exists():
            say(f"learned curves: {folder.curves}")
    else:
        folder.mark_requeue(loop.state.step, stop.signal_name)
        asked_by = stop.signal_name or "a signal to another process"
        say(f"stopped by {asked_by} at step {loop.state.step}, saved; the same command goes on from there")

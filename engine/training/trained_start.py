"""The first moments of a run that starts from trained weights: calibration, and what new activations cost."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import nn

import pwlu
from engine.evaluation import Evaluation
from engine.processes.distributed import World
from engine.records.console import listed, metrics_line, say
from engine.training.loop import Plan, Task, evaluate_all
from engine.training.optimizer import OptimizerOptions
from engine.training.origin import Origin
from engine.training.starting_weights import StartingWeights
from engine.training.state import TrainingState

CALIBRATION_IMAGES = 512  # over all processes


def begin_from_trained(
    state: TrainingState,
    task: Task,
    plan: Plan,
    world: World,
    origin: Origin,
    tell: Callable[[str, Mapping[str, float | int]], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Calibrate PWLUs that no phase I prepares; return whether that was done.

    Say the main metric with the activations that the weights were trained with, and with the new ones, and
    record all metrics by `tell`: not where a stop is requested, nor with a new head, of which nothing is
    known yet.
    """
    moved: dict[str, float] = {}
    is_calibrated = state.phase == 2 and not origin.keeps_functions
    is_compared = bool(origin.exchanges) and not origin.new
    with torch.compiler.set_stance("force_eager"):  # nothing is compiled for these passes alone
        if is_compared:
            with origin.undone():
                before = evaluate_all(task, state.model, None, world, should_stop)
        if is_calibrated:
            moved = _calibrate(state, task, plan, world)
        if is_compared and before is not None:
            after = evaluate_all(task, state.model, None, world, should_stop)
            if after is not None:
                was, now = (
                    metrics_line({task.main_metric: evaluation.metrics[task.main_metric]})
                    for evaluation in (before, after)
                )
                if world.is_main:
                    say(f"validation with the activations that were there: {was}; with the new ones: {now}")
                tell("conversion", _conversion(before, after) | moved)
    return is_calibrated


def origin_sentences(origin: Origin, start: StartingWeights | None) -> list[str]:
    """Return what a user should know of where the weights come from."""
    sentences = [] if start is None else [f"starting from {start.describe()}"]
    if origin.new:
        sentences.append(f"{origin.new} are new: the weights have none that fit")
    if origin.keeps_functions:
        sentences.append("the activations go on as they were trained")
    return sentences


def origin_warnings(origin: Origin, options: OptimizerOptions) -> list[str]:
    """Return what is probably not meant."""
    warnings = []
    if origin.changed:
        warnings.append(
            f"the weights were trained with other functions than they meet now, at sites: "
            f"{listed(origin.changed)}; to keep the functions give activation.name=pwlu "
            "activation.init=replaced, or the activation.* that the weights were trained with"
        )
    if options.train_only == "activation" and not origin.is_trained:
        warnings.append(
            "optimizer.train_only=activation leaves all other weights at random; start from trained ones by "
            "--init-from or model.pretrained=true"
        )
    elif options.train_only == "activation" and origin.new:
        warnings.append(
            f"optimizer.train_only=activation leaves {origin.new} at random; train these first, with "
            "optimizer.train_only=all"
        )
    return warnings


def _conversion(before: Evaluation, after: Evaluation) -> dict[str, float]:
    return {
        f"{name}_{when}": value
        for when, evaluation in (("before", before), ("after", after))
        for name, value in evaluation.metrics.items()
        if name != "images"
    }


def _calibrate(state: TrainingState, task: Task, plan: Plan, world: World) -> dict[str, float]:
    """Return how far that moved the outputs, and the largest of them, where they can be compared."""

    def outputs(model: nn.Module, micro_batch: Any) -> torch.Tensor | None:
        found = task.predict(model, micro_batch)
        return found if isinstance(found, torch.Tensor) else None  # detections change their order

    report = pwlu.calibrate(state.model, _images(task, plan), forward=outputs)
    if state.ema is not None:  # it began before
        state.ema.copy(list(state.model.state_dict()))
    if world.is_main:
        say(report.summary())
    if report.largest_change is None or report.largest_output is None:
        return {}
    return {"largest_change": report.largest_change, "largest_output": report.largest_output}


def _images(task: Task, plan: Plan) -> Iterator[Any]:
    """Yield the first micro-batches of the first epoch, augmented as in training."""
    steps = min(plan.steps_per_epoch, math.ceil(CALIBRATION_IMAGES / plan.images_per_step))
    for micro_batches in islice(task.batches(0, 0), steps):
        yield from micro_batches

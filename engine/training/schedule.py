"""Learning rate schedules as pure functions of the step: there is no state to save."""

import math
from dataclasses import dataclass

from engine.bounds import NonNegativeFloat, NonNegativeInt, UpToOne, ZeroToOne


@dataclass(frozen=True, kw_only=True)
class OneCycleOptions:
    """The one-cycle cosine (section 4.1): a configuration's section `schedule` for ImageNet."""

    warmup_epochs: NonNegativeFloat  # half a cosine up to peak_lr; half a cosine down for the rest
    start_lr_ratio: UpToOne = 0.04  # first learning rate / peak_lr
    final_lr_ratio: ZeroToOne = 4e-6  # last learning rate / peak_lr


def one_cycle_cosine(
    step: int, options: OneCycleOptions, *, peak_lr: float, total_steps: int, steps_per_epoch: int
) -> float:
    """Return the learning rate of step `step` (from 0) in the one-cycle cosine schedule.

    Raises ValueError: a step outside the training, or a warm-up longer than it.
    """
    _require_step(step, total_steps)
    warmup_steps = whole_steps(options.warmup_epochs, steps_per_epoch)
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_epochs={options.warmup_epochs:g} are {warmup_steps} steps, more than all {total_steps}"
        )
    if step < warmup_steps:
        return peak_lr * _half_cosine(options.start_lr_ratio, 1.0, step / warmup_steps)
    down_steps = max(1, total_steps - 1 - warmup_steps)  # the last step, total_steps - 1, has the final rate
    return peak_lr * _half_cosine(1.0, options.final_lr_ratio, (step - warmup_steps) / down_steps)


@dataclass(frozen=True, kw_only=True)
class StepDecayOptions:
    """A rate that falls at milestones (section 4.2): a configuration's section `schedule` for COCO."""

    milestones_steps: list[int]  # steps at which the rate is multiplied by `decay_factor`
    decay_factor: UpToOne = 0.1  # of the rate at each milestone
    warmup_steps: NonNegativeInt = 1000  # a straight line up to peak_lr
    start_lr_ratio: UpToOne = 1e-3  # first learning rate / peak_lr


def step_decay(step: int, options: StepDecayOptions, *, peak_lr: float, total_steps: int) -> float:
    """Return the learning rate of step `step` (from 0) in the step decay schedule.

    Raises ValueError: a step outside the training.
    """
    _require_step(step, total_steps)
    decay = options.decay_factor ** sum(step >= milestone for milestone in options.milestones_steps)
    progress = min(1.0, step / options.warmup_steps) if options.warmup_steps else 1.0
    return peak_lr * decay * (options.start_lr_ratio + (1.0 - options.start_lr_ratio) * progress)


def whole_steps(epochs: float, steps_per_epoch: float) -> int:
    """Return the steps nearest to a possibly fractional number of epochs; at least 1 for any but 0."""
    return max(1, round(epochs * steps_per_epoch)) if epochs > 0 else 0


def _require_step(step: int, total_steps: int) -> None:
    if not 0 <= step < total_steps:
        raise ValueError(f"step: expected 0 to {total_steps - 1}, got {step}")


def _half_cosine(start: float, end: float, progress: float) -> float:
    """Go from start to end, flat at both ends, as progress goes from 0 to 1."""
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0

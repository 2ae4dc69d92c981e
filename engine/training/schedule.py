"""Schedules as pure functions: the same step always gives the same number, so there is no state to save."""

import math
from collections.abc import Sequence


def one_cycle_cosine(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    peak_lr: float,
    start_lr_ratio: float,
    final_lr_ratio: float,
) -> float:
    """Return the learning rate of step `step` (from 0) in the one-cycle cosine schedule (section 4.1).

    Half a cosine up from `peak_lr * start_lr_ratio` at step 0 to `peak_lr` at step `warmup_steps`, half a
    cosine down to `peak_lr * final_lr_ratio` at the last step, `total_steps - 1`.

    Raises:
        ValueError: a step outside the training, or a warm-up longer than it.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step: expected 0 to {total_steps - 1}, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps: expected 0 to {total_steps} (all steps), got {warmup_steps}")
    if step < warmup_steps:
        return peak_lr * _half_cosine(start_lr_ratio, 1.0, step / warmup_steps)
    down_steps = max(1, total_steps - 1 - warmup_steps)
    return peak_lr * _half_cosine(1.0, final_lr_ratio, (step - warmup_steps) / down_steps)


def step_decay(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    peak_lr: float,
    start_lr_ratio: float,
    milestones_steps: Sequence[int],
    decay_factor: float,
) -> float:
    """Return the learning rate of step `step` (from 0) in the schedule of section 4.2.

    A straight line up from `peak_lr * start_lr_ratio` at step 0 to `peak_lr` at step `warmup_steps`, then
    constant; from each milestone on `decay_factor` times what it was.

    Raises:
        ValueError: a step outside the training.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step: expected 0 to {total_steps - 1}, got {step}")
    decay = decay_factor ** sum(step >= milestone for milestone in milestones_steps)
    progress = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return peak_lr * decay * (start_lr_ratio + (1.0 - start_lr_ratio) * progress)


def whole_steps(epochs: float, steps_per_epoch: float) -> int:
    """Return the steps nearest to a possibly fractional number of epochs; at least 1 for any but 0."""
    return max(1, round(epochs * steps_per_epoch)) if epochs > 0 else 0


def _half_cosine(start: float, end: float, progress: float) -> float:
    """Go from start to end, flat at both ends, as progress goes from 0 to 1."""
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0

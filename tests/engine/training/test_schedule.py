import math

import pytest
import torch

from engine.training.schedule import (
    OneCycleOptions,
    StepDecayOptions,
    one_cycle_cosine,
    step_decay,
    whole_steps,
)


def lr(step: int, total_steps: int = 13, warmup_steps: int = 4) -> float:
    options = OneCycleOptions(warmup_epochs=warmup_steps, start_lr_ratio=0.1, final_lr_ratio=0.01)
    return one_cycle_cosine(step, options, peak_lr=2.0, total_steps=total_steps, steps_per_epoch=1)


def test_one_cycle_by_hand() -> None:
    assert lr(0) == pytest.approx(0.2)  # the start: peak * 0.1
    assert lr(2) == pytest.approx((0.2 + 2.0) / 2)  # half way up
    assert lr(1) == pytest.approx(0.2 + 1.8 * (1 - math.sqrt(0.5)) / 2)  # a quarter: cos(pi/4)
    assert lr(4) == pytest.approx(2.0)  # the peak at warmup_steps
    assert lr(8) == pytest.approx((2.0 + 0.02) / 2)  # half way down
    assert lr(12) == pytest.approx(0.02)  # the end: peak * 0.01 at the last step
    assert lr(0, warmup_steps=0) == pytest.approx(2.0)
    rising = [lr(step, total_steps=5, warmup_steps=5) for step in range(5)]
    assert rising == sorted(rising) and rising[-1] < 2.0


def test_equals_torch_one_cycle() -> None:
    """torch counts the peak into the warm-up, so its pct_start is one step longer."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2.0, total_steps=13, pct_start=5 / 13, div_factor=10, final_div_factor=10
    )
    for step in range(13):
        assert lr(step) == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
        if step < 12:
            optimizer.step()
            reference.step()


def test_step_decay_by_hand() -> None:
    options = StepDecayOptions(milestones_steps=[5, 7], warmup_steps=2, start_lr_ratio=0.1)
    rates = [step_decay(step, options, peak_lr=2.0, total_steps=8) for step in range(8)]
    assert rates == pytest.approx([0.2, 1.1, 2.0, 2.0, 2.0, 0.2, 0.2, 0.02])


def test_fractional_epochs_become_steps() -> None:
    assert [whole_steps(epochs, 22) for epochs in (0, 0.001, 0.5, 2, 2.04)] == [0, 1, 11, 44, 45]

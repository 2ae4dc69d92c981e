import copy
import math
from typing import Any

import pytest
import torch

from engine.processes.distributed import World
from engine.training.state import TrainingState
from engine.training.step import TrainStep, seed_step
from pwlu import PWLU
from tests.engine import tiny


def make_step(state: TrainingState, *, accumulation: int = 1, clip: float = 0.0, **options: Any) -> TrainStep:
    task = tiny.Task(World())
    settings = {"compute_losses": task.losses, "seed": 0} | options
    return TrainStep(state, World(), accumulation=accumulation, clip_grad_norm=clip, **settings)


def micro_batches(step: int, parts: int) -> list[tiny.Batch]:
    images, labels = tiny.global_batch(step)
    return list(zip(images.chunk(parts), labels.chunk(parts), strict=True))


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_accumulation_equals_the_whole_batch(accumulation: int) -> None:
    """Loss, statistics, gradients: nothing but rounding may depend on how the batch is cut."""
    whole, cut = (tiny.state(tiny.network(normalized=False, dropout=0.0), phase1_steps=2) for _ in range(2))
    whole_step, cut_step = make_step(whole), make_step(cut, accumulation=accumulation)
    for step in range(4):
        one = whole_step(micro_batches(step, 1), 0.1)
        other = cut_step(micro_batches(step, accumulation), 0.1)
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert one.realigned == other.realigned == (step == 1)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_phase_one_moves_no_pwlu_parameter_in_spite_of_momentum_and_decay() -> None:
    state = tiny.state(tiny.network(normalized=False), phase1_steps=4, decay=0.1)
    take_step = make_step(state)
    pwlu = next(module for module in state.model if isinstance(module, PWLU))
    convolution = copy.deepcopy(state.model[0].weight)
    before = {name: parameter.detach().clone() for name, parameter in pwlu.named_parameters()}
    for step in range(3):
        take_step(micro_batches(step, 1), 0.1)
        assert all(torch.equal(parameter, before[name]) for name, parameter in pwlu.named_parameters())
        assert not any(parameter in state.optimizer.state for parameter in pwlu.parameters())
    assert not torch.equal(state.model[0].weight, convolution)
    assert take_step(micro_batches(3, 1), 0.1).realigned
    take_step(micro_batches(4, 1), 0.1)
    assert not torch.equal(pwlu.left, pwlu.running_mean - 3 * pwlu.running_std)  # learns


def test_average_takes_the_realigned_curves_as_they_are() -> None:
    state = tiny.state(tiny.network(), phase1_steps=2)
    take_step = make_step(state)
    for step in range(2):
        take_step(micro_batches(step, 1), 0.1)
    assert state.ema is not None
    averaged, live = state.ema.state_dict()["weights"], state.model.state_dict()
    for name in live:
        assert torch.equal(averaged[name], live[name]) == (name.startswith("2.") or "tracked" in name), name


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    state = tiny.state(tiny.network())
    take_step = make_step(state, compute_losses=lambda model, batch: {"sum": model(batch[0]).sum() * bad})
    before = copy.deepcopy([state.optimizer.state_dict(), state.phases.state_dict(), state.ema.state_dict()])
    parameters = [parameter.detach().clone() for parameter in state.model.parameters()]
    result = take_step(micro_batches(0, 1), 0.1)
    assert not math.isfinite(result.loss)
    assert state.step == 0
    assert all(map(torch.equal, state.model.parameters(), parameters))
    after = [state.optimizer.state_dict(), state.phases.state_dict(), state.ema.state_dict()]
    assert str(before) == str(after)


def test_clipping_bounds_the_whole_gradient() -> None:
    """One step of plain SGD with learning rate 1 moves the parameters by the clipped gradient."""
    state = tiny.state(tiny.network(), phase1_steps=0, decay=0.0)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    make_step(state, clip=0.25)(micro_batches(0, 1), 1.0)
    moved = [new - old for new, old in zip(state.model.parameters(), before, strict=True)]
    assert torch.cat([difference.flatten() for difference in moved]).norm().item() == pytest.approx(
        0.25, rel=1e-4
    )


def test_float16_overflow_leaves_a_step_out_and_lowers_the_scale() -> None:
    """An infinite gradient is normal with a scaler; the loss itself is finite, and training goes on."""
    state = tiny.state(tiny.network(), fp16=True, phase1_steps=0)
    first_scale = state.scaler.get_scale()
    overflowing = make_step(
        state, compute_losses=lambda model, batch: {"mean": _Overflow.apply(model(batch[0]).mean())}
    )
    weight = state.model[0].weight.detach().clone()
    result = overflowing(micro_batches(0, 1), 0.1)
    assert math.isfinite(result.loss) and state.step == 1
    assert torch.equal(state.model[0].weight, weight)
    assert state.scaler.get_scale() == first_scale / 2
    make_step(state)(micro_batches(1, 1), 0.1)
    assert not torch.equal(state.model[0].weight, weight)


class _Overflow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.inf


def test_scaled_and_unscaled_training_agree() -> None:
    plain, scaled = tiny.state(tiny.network()), tiny.state(tiny.network(), fp16=True)
    for step in range(6):
        make_step(plain, clip=1.0)(micro_batches(step, 1), 0.1)
        make_step(scaled, clip=1.0)(micro_batches(step, 1), 0.1)
    assert scaled.scaler.get_scale() == 8.0 * 2**3  # it grew, and still
    for one, other in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_request_to_stop_is_reported_and_training_mode_is_restored() -> None:
    state = tiny.state(tiny.network())
    take_step = make_step(state)
    state.model.eval()
    assert not take_step(micro_batches(0, 1), 0.1).stop_requested
    assert all(module.training for module in state.model.modules())
    assert take_step(micro_batches(1, 1), 0.1, lambda: True).stop_requested


def test_random_numbers_depend_on_seed_step_and_rank_alone() -> None:
    def draw(seed: int, step: int, rank: int) -> float:
        seed_step(seed, step, rank)
        return torch.rand(()).item()

    torch.rand(7)  # what came before does not matter
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)}) == 8

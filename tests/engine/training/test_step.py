import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.data.device import DeviceFeed, normalize
from engine.processes.distributed import World
from engine.training.state import TrainingState
from engine.training.step import TrainStep, seed_step
from pwlu import PWLU, fuse_batch_norm
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


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("first", [0, 3])
def test_a_loss_that_is_not_finite_changes_no_parameter(first: int, bad: float, fp16: bool) -> None:
    """Nor does it spoil the momentum: the step after it is as if it had not been, gradients finite or not."""
    once, twice = (
        tiny.state(tiny.network(normalized=False), phase1_steps=9 - 7 * (first > 0), fp16=fp16)
        for _ in range(2)
    )
    for state in (once, twice):
        for step in range(first):
            make_step(state)(micro_batches(step, 1), 0.1)
    for spoil in (lambda loss: loss * bad, lambda loss: loss + bad):
        before = [parameter.detach().clone() for parameter in twice.model.parameters()]
        losses = make_step(
            twice, compute_losses=lambda model, batch, s=spoil: {"sum": s(model(batch[0]).sum())}
        )
        assert not losses(micro_batches(0, 1), 0.1).is_finite
        assert all(map(torch.equal, twice.model.parameters(), before))
    for name, buffers in twice.optimizer.state.items():
        assert buffers["momentum_buffer"].isfinite().all(), name
    if first:
        for one, other in zip(once.optimizer.state.values(), twice.optimizer.state.values(), strict=True):
            assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])


@pytest.mark.parametrize("phase1_steps", [1, 2])
def test_a_step_that_would_end_phase_1_sets_no_boundaries_if_its_loss_is_not_finite(
    phase1_steps: int,
) -> None:
    state = tiny.state(tiny.network(), phase1_steps=phase1_steps)
    for step in range(phase1_steps - 1):
        make_step(state)(micro_batches(step, 1), 0.1)
    before = copy.deepcopy([state.optimizer.state_dict(), state.phases.state_dict(), state.ema.state_dict()])
    spoilt = make_step(state, compute_losses=lambda model, batch: {"sum": model(batch[0]).sum() * math.nan})
    assert not spoilt(micro_batches(0, 1), 0.1).is_finite
    assert state.phases.phase == 1 and torch.equal(state.model[2].left, PWLU(4).left)
    after = [state.optimizer.state_dict(), state.phases.state_dict(), state.ema.state_dict()]
    assert str(before[1:]) == str(after[1:])


def noted(method: Callable[..., Any], asked: list[str]) -> Callable[..., Any]:
    """Return the method, whose name is added to `asked` at every call."""

    def call(*arguments: Any) -> Any:
        asked.append(method.__name__)
        return method(*arguments)

    return call


def test_a_step_waits_for_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With averages, clipping and a scaler no value of a tensor is asked for.

    Phase I looks whether its statistics are finite: on a CPU in every step, on a GPU in few of them.
    """
    state = tiny.state(tiny.network(), phase1_steps=2, fp16=True)
    take_step = make_step(state, accumulation=2, clip=1.0)
    take_step(micro_batches(0, 2), 0.1)
    asked: list[str] = []
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, noted(getattr(torch.Tensor, name), asked))
    assert take_step(micro_batches(1, 2), 0.1).realigned and asked
    asked.clear()
    for step in range(2, 6):
        take_step(micro_batches(step, 2), 0.1)
    assert not asked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("fp16", [False, True])
def test_the_host_waits_for_no_gpu(fp16: bool) -> None:
    """Images are brought, steps are taken and earlier results read; torch raises where it would wait."""
    device = torch.device("cuda")
    network = tiny.network().to(device)
    fuse_batch_norm(network, input_size=(3, 6, 6))
    state = tiny.state(network, phase1_steps=0, fp16=fp16, device="cuda")
    world = World(device=device)
    take_step = TrainStep(
        state,
        world,
        compute_losses=tiny.Task(world).losses,
        accumulation=1,
        clip_grad_norm=1.0,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (8, 3, 6, 6), dtype=torch.uint8, generator=generator).pin_memory()
    labels = torch.randint(4, (8,), generator=generator).pin_memory()

    def bring() -> tiny.Batch:
        images = normalize(pictures.to(device, non_blocking=True), torch.contiguous_format)
        return images, labels.to(device, non_blocking=True)

    feed, unread = DeviceFeed(device), None
    try:
        for step in range(8):
            if step == 3:
                torch.cuda.set_sync_debug_mode("error")
            result = take_step([feed(bring)], 0.1)
            assert unread is None or unread.is_finite
            unread = result
            state.losses.add(result)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(state.losses.take()["loss"])


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


def test_a_request_to_stop_is_reported() -> None:
    take_step = make_step(tiny.state(tiny.network()))
    assert not take_step(micro_batches(0, 1), 0.1).stop_requested
    assert take_step(micro_batches(1, 1), 0.1, lambda: True).stop_requested


def test_random_numbers_depend_on_seed_step_and_rank_alone() -> None:
    def draw(seed: int, step: int, rank: int) -> float:
        seed_step(seed, step, rank)
        return torch.rand(()).item()

    torch.rand(7)  # what came before does not matter
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)}) == 8

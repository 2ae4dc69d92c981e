"""TwoPhaseLearning that was given the optimizer: its steps make the calls."""

import copy
from typing import Any

import pytest
import torch
from timm.optim import Lookahead
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.helpers import saved_whole
from pwlu_ext.tests.training import (
    assert_statistics,
    batches,
    feed,
    make_optimizer,
    mean_and_std,
    small_network,
    train,
)


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_hooks_do_what_the_calls_do(name: str) -> None:
    by_calls, by_hooks = small_network(), small_network()
    optimizer = make_optimizer(name, by_calls)
    expected = train(by_calls, TwoPhaseLearning(by_calls, 3), optimizer, range(6))
    optimizer = make_optimizer(name, by_hooks)
    phases = TwoPhaseLearning(by_hooks, 3, optimizer=optimizer)
    assert train(by_hooks, phases, optimizer, range(6), hooks=True) == expected
    assert expected == [False, False, True, False, False, False] and phases.step_count == 6
    assert states_equal(by_calls, by_hooks)


def test_explicit_calls_are_an_error() -> None:
    model = small_network()
    phases = TwoPhaseLearning(model, 3, optimizer=make_optimizer("sgd", model))
    for call in (phases.before_optimizer_step, phases.after_optimizer_step):
        with pytest.raises(RuntimeError, match="step.. makes this call itself"):
            call()
    assert phases.step_count == 0


def test_optimizers_without_hooks_are_refused() -> None:
    """Lookahead inherits from Optimizer, but its own step calls none."""
    model = small_network()
    for optimizer in (Lookahead(make_optimizer("sgd", model)), object()):
        with pytest.raises(
            ValueError, match="call before_optimizer_step.. and after_optimizer_step.. around"
        ):
            TwoPhaseLearning(model, 3, optimizer=optimizer)  # type: ignore[arg-type]


def test_a_second_schedule_in_phase_1_is_refused() -> None:
    """The first one's optimizer would end phase I at its own step."""
    model = small_network()
    optimizer = make_optimizer("sgd", model)
    TwoPhaseLearning(model, 3, optimizer=optimizer)
    with pytest.raises(ValueError, match="PWLU '1' is in phase I of another TwoPhaseLearning"):
        TwoPhaseLearning(model, 2, optimizer=optimizer)


@pytest.mark.parametrize("as_keyword", [False, True])
@pytest.mark.parametrize("name", ["sgd", "lbfgs"])
def test_a_closure_computes_gradients_within_the_step(name: str, as_keyword: bool) -> None:
    """Weight decay would move parameters by their gradient of zero."""
    model = small_network()
    lbfgs = name == "lbfgs"
    optimizer = torch.optim.LBFGS(model.parameters()) if lbfgs else make_optimizer(name, model)
    phases = TwoPhaseLearning(model, 2, optimizer=optimizer)
    start = copy.deepcopy(model.state_dict())
    x = torch.randn(8, 1, 6, 6)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(4):
        losses.append(optimizer.step(closure=closure) if as_keyword else optimizer.step(closure))
        learns = {
            key for key, parameter in model.named_parameters() if not torch.equal(parameter, start[key])
        }
        if phases.phase == 1:
            assert learns == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert phases.step_count == 4 and losses[-1] < losses[0]
    assert model[1].running_std.any()


class Step:
    """A step with a GradScaler; gradients overflow where `overflows`."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        self.model, self.optimizer = model, optimizer

    def __call__(self, x: torch.Tensor, overflows: bool = False) -> None:
        self.optimizer.zero_grad()
        loss = self.model(x).sum() * (float("inf") if overflows else 1.0)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


def test_a_skipped_step_does_not_count_and_its_statistics_join_the_next() -> None:
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 1, optimizer=optimizer)
    step = Step(model, optimizer)
    x, y = batches(2, 9, 2)
    step(x, overflows=True)
    assert (phases.step_count, phases.phase) == (0, 1)
    step(y)
    assert (phases.step_count, phases.phase) == (1, 2)
    assert_statistics(model[0], *mean_and_std(torch.cat([x, y]), (0,)))


def test_a_skipped_step_that_is_not_finite_has_no_part_in_the_next() -> None:
    """It is named, too."""
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 2, optimizer=optimizer)
    step = Step(model, optimizer)
    x, y, z = batches(3, 9, 2)
    step(x)
    for _ in range(2):
        step(y * float("inf"))
    assert phases.step_count == 1
    with pytest.warns(UserWarning, match="'0'.*not finite"):
        step(z)
    assert (phases.step_count, phases.phase) == (2, 2)
    expected = PWLU(2)
    feed(expected, TwoPhaseLearning(expected, 2), [x], [z])
    assert_statistics(model[0], expected.running_mean, expected.running_std)


@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_accumulation_leaves_out_the_whole_step(spoilt: int) -> None:
    """The loss is finite: ReLU makes zeros of negative infinities."""
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    TwoPhaseLearning(model, 3, optimizer=optimizer)
    clean, *parts = batches(4, 9, 2)
    parts[spoilt] = torch.full((9, 2), -float("inf"))
    with pytest.warns(UserWarning, match="'0'.*not finite"):
        for inputs in ([clean], parts):
            optimizer.zero_grad()
            for x in inputs:
                model(x).sum().backward()
            optimizer.step()
    assert model[1].weight.isfinite().all()
    assert_statistics(model[0], *mean_and_std(clean, (0,)))


@pytest.mark.parametrize("spoilt", [0, 1, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_calls_before_one_backward_pass_leave_out_the_whole_step(spoilt: int, compiled: bool) -> None:
    """A detector's pyramid levels share their PWLUs; the order of the levels does not matter."""
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    TwoPhaseLearning(model, 3, optimizer=optimizer)
    called = torch.compile(model, backend="eager") if compiled else model
    clean, *levels = batches(4, 9, 2)
    levels[spoilt] = torch.full((9, 2), -float("inf"))
    with pytest.warns(UserWarning, match="'0'.*not finite"):
        for inputs in ([clean], levels):
            optimizer.zero_grad()
            torch.cat([called(x) for x in inputs]).sum().backward()
            optimizer.step()
    assert_statistics(model[0], *mean_and_std(clean, (0,)))


def test_a_step_given_up_before_its_backward_pass_takes_the_next_one_along() -> None:
    """A loop that goes on where its loss is not finite; the steps after the next one are taken."""
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 4, optimizer=optimizer)
    x, y, z = batches(3, 9, 2)
    with pytest.warns(UserWarning, match="'0'.*not finite"):
        for inputs in (x, y * float("nan"), y, z):
            optimizer.zero_grad()
            loss = model(inputs).sum()
            if loss.isfinite():
                loss.backward()
                optimizer.step()
    assert phases.step_count == 3
    expected = PWLU(2)
    feed(expected, TwoPhaseLearning(expected, 4), [x], [z])
    assert_statistics(model[0], expected.running_mean, expected.running_std)


def test_a_fused_optimizer_skips_within_its_step_which_counts() -> None:
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    weight = model[1].weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    phases = TwoPhaseLearning(model, 2, optimizer=optimizer)
    Step(model, optimizer)(batches(1, 9, 2)[0], overflows=True)
    assert phases.step_count == 1 and torch.equal(model[1].weight, weight)


def test_with_explicit_calls_a_skipped_step_counts() -> None:
    model = nn.Sequential(PWLU(2), nn.Linear(2, 1))
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 2)
    step = Step(model, optimizer)
    (x,) = batches(1, 9, 2)
    weight = model[1].weight.detach().clone()
    phases.before_optimizer_step()
    step(x, overflows=True)
    assert not phases.after_optimizer_step() and torch.equal(model[1].weight, weight)
    assert_statistics(model[0], *mean_and_std(x, (0,)))
    assert phases.step_count == 1


@pytest.mark.parametrize("phases_first", [True, False])
def test_an_optimizer_state_of_torch_distributed_is_no_step(phases_first: bool) -> None:
    """torch.distributed.checkpoint makes the state of a new optimizer by a step that changes nothing."""
    model = small_network()
    optimizer = make_optimizer("adamw", model)
    phases = TwoPhaseLearning(model, 3, optimizer=optimizer)
    train(model, phases, optimizer, range(2), hooks=True)
    saved = copy.deepcopy(
        [model.state_dict(), phases.state_dict(), get_optimizer_state_dict(model, optimizer)]
    )
    train(model, phases, optimizer, range(2, 5), hooks=True)

    resumed = small_network()
    optimizer = make_optimizer("adamw", resumed)
    again = TwoPhaseLearning(resumed, 3, optimizer=optimizer)
    resumed.load_state_dict(saved[0])
    if phases_first:
        again.load_state_dict(saved[1])
    options = StateDictOptions(strict=False)  # the functions have no state in phase I
    set_optimizer_state_dict(resumed, optimizer, saved[2], options=options)
    if not phases_first:
        again.load_state_dict(saved[1])
    assert (again.step_count, again.phase) == (2, 1)
    train(resumed, again, optimizer, range(2, 5), hooks=True)
    assert states_equal(model, resumed)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, saved_whole])
@pytest.mark.parametrize("phases_first", [True, False])
def test_a_copied_optimizer_drives_the_copied_phases(make_copy: Any, phases_first: bool) -> None:
    """Once for each step; and the original goes on with its own."""
    model = small_network()
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 3, optimizer=optimizer)
    train(model, phases, optimizer, range(2), hooks=True)
    parts = (phases, optimizer, model) if phases_first else (model, optimizer, phases)
    copies = make_copy(parts)
    twin, twin_optimizer, twin_phases = reversed(copies) if phases_first else copies
    assert train(twin, twin_phases, twin_optimizer, range(2, 5), hooks=True) == [True, False, False]
    assert (phases.step_count, phases.phase, twin_phases.step_count) == (2, 1, 5)
    assert train(model, phases, optimizer, range(2, 5), hooks=True) == [True, False, False]
    assert states_equal(model, twin)

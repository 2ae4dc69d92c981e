"""Checkpoints and copies of a model, taken in either phase."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.training import (
    assert_statistics,
    batches,
    feed,
    make_optimizer,
    mean_and_std,
    small_network,
    train,
)


def checkpoint(
    model: nn.Module, phases: TwoPhaseLearning, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    return copy.deepcopy([model.state_dict(), phases.state_dict(), optimizer.state_dict()])


@pytest.mark.parametrize("interrupted_after", [1, 2, 3, 4])
@pytest.mark.parametrize("model_first", [True, False])
@pytest.mark.parametrize("hooks", [True, False])
def test_resumed_equals_uninterrupted(interrupted_after: int, model_first: bool, hooks: bool) -> None:
    """To the bit, in phase I, at the switch and in phase II."""
    model = small_network()
    optimizer = make_optimizer("sgd", model)
    phases = TwoPhaseLearning(model, 3, optimizer=optimizer if hooks else None)
    whole = train(model, phases, optimizer, range(interrupted_after), hooks)
    saved_model, saved_phases, saved_optimizer = checkpoint(model, phases, optimizer)
    whole += train(model, phases, optimizer, range(interrupted_after, 6), hooks)
    assert whole == [False, False, True, False, False, False]

    resumed = small_network()
    optimizer = make_optimizer("sgd", resumed)
    again = TwoPhaseLearning(resumed, 3, optimizer=optimizer if hooks else None)
    loads = [lambda: resumed.load_state_dict(saved_model), lambda: again.load_state_dict(saved_phases)]
    for load in loads if model_first else reversed(loads):
        load()
    optimizer.load_state_dict(saved_optimizer)
    assert again.step_count == interrupted_after and again.phase == (1 if interrupted_after < 3 else 2)
    assert train(resumed, again, optimizer, range(interrupted_after, 6), hooks) == whole[interrupted_after:]
    for (key, value), expected in zip(resumed.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key


def test_state_is_plain() -> None:
    state = TwoPhaseLearning(PWLU(1), 3).state_dict()
    assert state == {"step_count": 0, "phase1_steps": 3}
    assert all(type(value) is int for value in state.values())


def test_going_back_to_phase_1() -> None:
    """An earlier checkpoint, loaded after the realignment, is in phase I again."""
    module = PWLU(1, 4)
    phases = TwoPhaseLearning(module, 2)
    x, y = batches(2, 9, 1)
    feed(module, phases, [x])
    state, weights = phases.state_dict(), copy.deepcopy(module.state_dict())
    feed(module, phases, [y])
    realigned = copy.deepcopy(module.state_dict())
    phases.load_state_dict(state)
    module.load_state_dict(weights)
    assert phases.phase == 1
    assert feed(module, phases, [y]) == [True]
    for key, value in module.state_dict().items():
        assert torch.equal(value, realigned[key]), key


def test_inputs_since_the_checkpoint_are_forgotten() -> None:
    module = PWLU(1)
    phases = TwoPhaseLearning(module, 2)
    x, y = batches(2, 9, 1)
    module(y)
    phases.load_state_dict(phases.state_dict())
    feed(module, phases, [x])
    assert_statistics(module, *mean_and_std(x, (0,)))


def test_state_of_another_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="phase1_steps=3, this one 5"):
        TwoPhaseLearning(PWLU(1), 5).load_state_dict({"step_count": 1, "phase1_steps": 3})

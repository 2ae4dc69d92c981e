"""A checkpoint's weights together with the phase that they are of."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.training.checkpoint import CheckpointError
from engine.training.state import load_network
from pwlu import PWLU, TwoPhaseLearning


def network(init: str) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), PWLU(4, num_intervals=5, init=init))


def load(model: nn.Sequential, source: nn.Sequential, step_count: int) -> TwoPhaseLearning:
    phases = TwoPhaseLearning(model, 2)
    state = {"step_count": step_count, "phase1_steps": 2}
    load_network(model, phases, {"model": source.state_dict(), "phases": state})
    return phases


def test_in_phase_one_the_network_is_the_starting_function() -> None:
    x, source, model = torch.randn(2, 3, 5, 5), network("silu"), network("silu")
    phases = load(model, source, step_count=1)
    assert phases.phase == 1 and torch.equal(model.eval()(x), F.silu(source[0](x)))
    phases = load(model, source, step_count=2)
    assert phases.phase == 2 and torch.equal(model(x), source(x))


def test_another_starting_function_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"is another function here: 1 \(1\)"):
        load(network("relu"), network("silu"), step_count=1)
    load(network("relu"), network("silu"), step_count=2)

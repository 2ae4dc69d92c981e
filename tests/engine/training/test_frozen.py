"""`optimizer.train_only=activation`: nothing else moves, on one process and on two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.amp import Precision
from engine.processes.distributed import World
from engine.training.optimizer import NothingLearns, OptimizerOptions
from engine.training.state import TrainingState, new_state
from engine.training.step import TrainStep
from models import FReLU, is_activation
from tests.engine import tiny
from tests.training_runs import run_function

OPTIONS = OptimizerOptions(
    peak_lr=0.1,
    weight_decay=0.1,
    norm_and_bias_weight_decay=0.1,
    activation_weight_decay=0.01,
    ema_decay=0.9,
    train_only="activation",
)


def state_of(model: nn.Module) -> TrainingState:
    precision = Precision("off", torch.device("cpu"))
    return new_state(model, precision, OPTIONS, is_activation=is_activation, phase1_steps=0)


def train(world: World, steps: int = 3) -> dict[str, Any]:
    """Return the model and its average after some steps."""
    state, task = state_of(tiny.network(dropout=0.0)), tiny.Task(world, accumulation=2)
    take_step = TrainStep(
        state, world, compute_losses=task.losses, accumulation=2, clip_grad_norm=0.0, seed=0
    )
    for micro_batches in list(task.batches(0, 0))[:steps]:
        state.train_mode()
        take_step(micro_batches, 0.1)
    assert state.ema is not None
    return {"model": dict(state.model.state_dict()), "ema": state.ema.state_dict()["weights"]}


def test_only_activations_move_on_one_process_and_on_two(tmp_path: Path) -> None:
    start, alone = tiny.network().state_dict(), train(World())
    first, second = run_function(train, processes=2, folder=tmp_path)
    learned = {"2.left", "2.right", "2.points", "2.right_slope"}  # no input is left of a boundary
    for name, value in start.items():
        for found in (alone, first, second):
            for weights in (found["model"], found["ema"]):
                assert torch.equal(weights[name], value) == (name not in learned), name
        torch.testing.assert_close(first["model"][name], alone["model"][name])
        assert torch.equal(first["model"][name], second["model"][name])


def test_normalisation_uses_its_own_statistics_and_an_activation_s_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), FReLU(3), nn.InstanceNorm2d(3, affine=True))
    state = state_of(model)
    state.train_mode()
    assert [module.training for module in model] == [False, True, True, True]
    assert model[2].norm.training
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning == [name for name, _ in model.named_parameters() if name.startswith("2.")]
    (group,) = state.optimizer.param_groups
    assert (group["name"], group["weight_decay"]) == ("activation", 0.01)


def test_a_network_without_learning_activations_is_refused() -> None:
    with pytest.raises(NothingLearns, match="no activation of this network has parameters"):
        state_of(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))

"""Copies of a model with PWLUs: deepcopy, pickle, weight averages; in both phases."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pwlu import PWLU, TwoPhaseLearning, pwlu
from pwlu_ext.tests.helpers import NAMES, saved_whole
from pwlu_ext.tests.networks import bent_network, pwlus

COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "torch.save": saved_whole,
}


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("phase_1", [False, True])
def test_a_copied_network_computes_the_same_and_learns_apart(
    make_copy: Callable[[nn.Module], nn.Module], phase_1: bool
) -> None:
    model = bent_network("test_resnet")
    if phase_1:
        TwoPhaseLearning(model, 1)
    twin = make_copy(model).eval()
    x = torch.randn(2, 3, 32, 32)
    y = model.eval()(x)
    # In phase I the model computes ReLU itself, its copy what the parameters say.
    torch.testing.assert_close(twin(x), y, rtol=0, atol=1e-5 if phase_1 else 0)
    twin(x).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        pwlus(twin)[0].points += 1
    assert torch.equal(model(x), y) and not torch.equal(twin(x), y)


def timm_average(model: nn.Module) -> tuple[nn.Module, Callable[[], Any]]:
    average = ModelEmaV3(model, decay=0.5)
    return average.module, lambda: average.update(model)


def torch_average(model: nn.Module) -> tuple[nn.Module, Callable[[], Any]]:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(model)  # the first update copies
    return average.module, lambda: average.update_parameters(model)


@pytest.mark.parametrize("make_average", [timm_average, torch_average])
def test_weight_averages_made_in_phase_1_follow_into_phase_2(
    make_average: Callable[[nn.Module], tuple[nn.Module, Callable[[], Any]]],
) -> None:
    """Every parameter is averaged, from the ReLU of phase I on; the copy is used in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 1), PWLU(3, 4))
    phases = TwoPhaseLearning(model, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    averaged, update = make_average(model)
    expected = [p.detach().clone() for p in model.parameters()]
    for _ in range(5):
        model(torch.randn(4, 2, 6)).square().mean().backward()
        phases.before_optimizer_step()
        optimizer.step()
        phases.after_optimizer_step()
        optimizer.zero_grad()
        update()
        expected = [(mean + p.detach()) / 2 for mean, p in zip(expected, model.parameters(), strict=True)]
    assert phases.phase == 2
    for mean, value in zip(averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(mean.detach(), value)
    check_evaluation(averaged.eval(), torch.randn(4, 2, 6))


def check_evaluation(averaged: nn.Module, x: Tensor) -> None:
    between, last = averaged[0](x), averaged[1]
    assert last.left.max() < 0 and not torch.equal(last.left, torch.full((3,), -3.0))
    assert torch.equal(averaged(x), pwlu(between, *(getattr(last, name) for name in NAMES)))


def test_an_average_begun_in_phase_1_learns_in_training_mode_too() -> None:
    """As in update_bn. It would be ReLU, its start, there for ever if it believed to be in phase I still."""
    model = nn.Sequential(nn.Conv1d(2, 3, 1), PWLU(3, 4))
    TwoPhaseLearning(model, 1)
    averaged = copy.deepcopy(model)
    with torch.no_grad():
        averaged[1].points += 1
    x = torch.randn(4, 2, 6)
    assert torch.equal(averaged.train()(x), averaged.eval()(x))

"""What the tests of the two-phase learning share: inputs, a small network, and steps of training."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pwlu import PWLU, TwoPhaseLearning


def feed(module: PWLU, phases: TwoPhaseLearning, *steps: Iterable[Tensor]) -> list[bool]:
    """Steps of one or several forward passes each, without an optimizer; what after_optimizer_step said."""
    returned = []
    for inputs in steps:
        for x in inputs:
            module(x)
        phases.before_optimizer_step()
        returned.append(phases.after_optimizer_step())
    return returned


def batches(count: int, *shape: int) -> list[Tensor]:
    """Inputs of different mean and spread."""
    generator = torch.Generator().manual_seed(0)
    return [(i + 1) * torch.randn(shape, generator=generator) + 3 * i - 1 for i in range(count)]


def mean_and_std(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean = x.double().mean(dims, keepdim=True)
    return mean.flatten().float(), (x.double() - mean).square().mean(dims).sqrt().flatten().float()


def assert_statistics(module: PWLU, mean: Tensor, std: Tensor) -> None:
    torch.testing.assert_close(module.running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.running_std, std, rtol=1e-5, atol=1e-6)


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), PWLU(4, 6), nn.Flatten(), nn.Linear(64, 3), PWLU(1, 4, init="silu")
    )


def train(
    model: nn.Module,
    phases: TwoPhaseLearning,
    optimizer: torch.optim.Optimizer,
    steps: Iterable[int],
    hooks: bool = False,
) -> list[bool]:
    """Regression steps on inputs that depend on the step's number alone; which of them ended phase I.

    `hooks`: whether the phases were given the optimizer.
    """
    ended = []
    for step in steps:
        before = phases.phase
        x = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x[:, :, 0, :3].flatten(1)).square().mean().backward()
        if not hooks:
            phases.before_optimizer_step()
        optimizer.step()
        realigned = (before, phases.phase) == (1, 2) if hooks else phases.after_optimizer_step()
        ended.append(realigned)
    return ended

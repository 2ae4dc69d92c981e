"""First, second and third derivatives against finite differences and against the reference."""

import pytest
import torch
from torch import Tensor

from pwlu import pwlu, pwlu_reference
from pwlu_ext.tests.helpers import BOTH, Operator, Parameters, random_parameters, spread_inputs


def case(groups: int, shape: tuple[int, ...], channel_dim: int, device: str = "cpu") -> list[Tensor]:
    """Arguments in float64, with x clear of the knots, where there is no derivative."""
    parameters: Parameters = random_parameters(groups, 4, torch.float64, device)
    x = spread_inputs(shape, parameters, channel_dim, torch.float64)
    return [tensor.requires_grad_() for tensor in (x, *parameters)]


@BOTH
@pytest.mark.parametrize(
    ("groups", "shape", "channel_dim"),
    [(1, (3, 4), 1), (3, (2, 3, 4), 1), (3, (2, 4, 3), -1), (3, (3, 3, 3), 0)],
)
def test_gradcheck(
    device: str, operator: Operator, groups: int, shape: tuple[int, ...], channel_dim: int
) -> None:
    arguments = case(groups, shape, channel_dim, device)
    assert torch.autograd.gradcheck(lambda *a: operator(*a, channel_dim=channel_dim), arguments)


@BOTH
@pytest.mark.parametrize(("groups", "channel_dim"), [(1, 1), (2, 1), (2, -1)])
def test_gradgradcheck(operator: Operator, groups: int, channel_dim: int) -> None:
    arguments = case(groups, (2, 2, 2), channel_dim)
    assert torch.autograd.gradgradcheck(lambda *a: operator(*a, channel_dim=channel_dim), arguments)


def test_gradgradcheck_of_a_subset() -> None:
    x, *parameters = case(2, (2, 2, 2), 1)
    fixed = [p.detach() for p in parameters]
    assert torch.autograd.gradgradcheck(
        lambda x, points: pwlu(x, *fixed[:2], points, *fixed[3:]), (x, fixed[2])
    )


def derivatives(operator: Operator, order: int) -> list[Tensor]:
    """The gradients after `order` differentiations, where x and a parameter also depend on one leaf."""
    x, left, *others = case(2, (2, 2, 3), 1)
    leaf = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    total = operator(x + leaf * left.view(2, 1), left * (1 + leaf), *others).pow(3).sum()
    for _ in range(order):
        gradients = torch.autograd.grad(total, (leaf, x, left, *others), create_graph=True)
        total = sum((g * g.detach().cos()).sum() for g in gradients)
    return [g.detach() for g in gradients]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_higher_derivatives_equal_those_of_the_reference(order: int) -> None:
    for actual, expected in zip(derivatives(pwlu, order), derivatives(pwlu_reference, order), strict=True):
        torch.testing.assert_close(actual, expected)

"""Both phases from every starting function: exact in phase I, on its values after Eq. 6, resumed, named."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.helpers import random_gradient
from pwlu_ext.tests.training import batches, feed

SLOPES = torch.tensor([0.1, 2.0, -0.3])


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x))


# What a PWLU of three functions is made with, and torch's own function.
STARTS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "relu": ({}, F.relu),
    "leaky_relu": ({"init": "leaky_relu"}, lambda x: F.leaky_relu(x, 0.25)),
    "a slope": ({"init": "leaky_relu", "init_slope": 0.1}, lambda x: F.leaky_relu(x, 0.1)),
    "slopes": ({"init": "leaky_relu", "init_slope": SLOPES}, lambda x: F.prelu(x, SLOPES.to(x.dtype))),
    "silu": ({"init": "silu"}, F.silu),
    "gelu": ({"init": "gelu"}, F.gelu),
    "hardswish": ({"init": "hardswish"}, F.hardswish),
    "relu6": ({"init": "relu6"}, F.relu6),
    "tanh": ({"init": "tanh"}, torch.tanh),
    "identity": ({"init": "identity"}, torch.clone),
    "module": ({"init": nn.SELU()}, F.selu),
    "function": ({"init": elu}, elu),
}
EACH = pytest.mark.parametrize("start", STARTS)


def outputs(
    module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """y and the gradient of x, from the module and from the function, in bits."""
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = module(ours), function(theirs)
    y.backward(random_gradient(y))
    expected.backward(random_gradient(expected))
    return [(y.detach(), expected.detach()), (ours.grad, theirs.grad)]


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_phase_1_is_the_function_to_the_bit(start: str, dtype: torch.dtype) -> None:
    """In value, gradient, dtype and layout, training or not, also where a number is not finite."""
    options, function = STARTS[start]
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    module = PWLU(3, 5, dtype=parameters, **options)
    TwoPhaseLearning(module, 1)
    x = 3 * torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0, :, 0] = torch.tensor([0.0, math.inf, -math.inf, math.nan, 3e38])
    for layout, training in ((torch.contiguous_format, False), (torch.channels_last, True)):
        module.train(training)
        image = x.to(dtype, memory_format=layout)
        for actual, expected in outputs(module, function, image):
            assert actual.dtype == dtype and actual.stride() == expected.stride()
            torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
        assert module.statistics.was_called == training
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x.to(dtype)).dtype == dtype
    assert all(not p.grad.any() for p in module.parameters())  # DistributedDataParallel waits for them


@EACH
def test_realignment_is_the_function_on_its_knots(start: str) -> None:
    """Eq. 6 in float64, with the statistics that ReLU's phase I collects too."""
    options, function = STARTS[start]
    module, relu = (PWLU(3, 6, dtype=torch.float64, **o) for o in (options, {}))
    x = torch.stack(batches(3, 50, 1), 1)[..., 0].double()
    for each in (module, relu):
        assert feed(each, TwoPhaseLearning(each, 1), [x]) == [True]
    assert torch.equal(module.running_std, relu.running_std)
    mean, std = x.mean(0), x.std(0, correction=0)
    knots = mean + 3 * std * torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(module.points.detach(), function(knots).T)
    # Computed by the operator, at the knots and as a whole: the gap is its distance from the function.
    torch.testing.assert_close(module(knots), function(knots))
    between = mean + 3 * std * torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    gap = ((module(between) - function(between)).abs().amax(0) / std).detach()
    torch.testing.assert_close(module.start_gap(), gap, rtol=0.02, atol=1e-6)


def test_the_gap_grows_with_what_was_learned() -> None:
    module = PWLU(2, init="identity")
    with torch.no_grad():
        module.points[1, 8] += 0.5
    torch.testing.assert_close(module.start_gap(), torch.tensor([0.0, 0.5]), rtol=0, atol=1e-6)


def exp_of_ten(x: Tensor) -> Tensor:
    return torch.exp(10 * x)


@pytest.mark.parametrize("hooks", [False, True])
def test_a_function_that_overflows_at_the_realignment(hooks: bool) -> None:
    """The error names the site; no site has changed, and phase I goes on."""
    model = nn.Sequential(nn.Linear(3, 3), PWLU(3, init="silu"), PWLU(1, init=exp_of_ten))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    phases = TwoPhaseLearning(model, 1, optimizer=optimizer if hooks else None)
    before = copy.deepcopy([*model[1].parameters(), *model[2].parameters()])
    with torch.no_grad():
        model[0].weight.fill_(5.0)
    model(10 * torch.randn(8, 3)).sum()
    with pytest.raises(ValueError, match=r"PWLU '2' .*\(Eq. 6\).* exp_of_ten, .* not finite everywhere"):
        optimizer.step() if hooks else phases.after_optimizer_step()
    after = [*model[1].parameters(), *model[2].parameters()]
    assert all(map(torch.equal, before, after))
    assert phases.phase == 1 and phases.state_dict()["step_count"] == 0
    assert all(site.statistics is not None for site in model[1:])


def test_a_checkpoint_of_another_start_is_named() -> None:
    """Phase I would go on with the new network's, in silence. Also of what has learned."""

    def network(**options: Any) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(PWLU(3, 8, **options), nn.Linear(3, 3), PWLU(1, 8))

    saved = {name: value.bfloat16() for name, value in network(init="silu", bound=2.0).state_dict().items()}
    learned = saved | {"0.points": saved["0.points"] + 0.1}
    for options, state, is_named in (
        ({"init": "silu"}, saved, False),
        ({"init": "silu"}, learned, True),
        ({}, saved, True),
        ({"init": "tanh"}, saved, True),
    ):
        model = network(**options)
        phases = TwoPhaseLearning(model, 3)
        model.load_state_dict(state)
        with warnings.catch_warnings(record=True, action="always") as caught:
            feed(model, phases, [torch.randn(4, 3)], [torch.randn(4, 3)])
        messages = [str(warning.message) for warning in caught]
        assert len(messages) == is_named and all("PWLU '0': the points" in text for text in messages)

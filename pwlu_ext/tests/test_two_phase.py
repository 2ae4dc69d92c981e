"""Section 3.3: phase I is the start with frozen parameters, phase II starts realigned (Eq. 6) and learns."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.helpers import random_gradient
from pwlu_ext.tests.training import (
    assert_statistics,
    batches,
    feed,
    make_optimizer,
    mean_and_std,
    small_network,
    train,
)


def test_phase_1_is_relu_to_the_bit() -> None:
    """In value and gradient, infinities and NaN included, and for an odd number of intervals."""
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3e38, -3e38] * 3)
    upper = random_gradient(special)
    upper[:9] = math.inf
    for x, grad in ((special, upper), (batches(3, 40)[2], torch.ones(40))):
        module = PWLU(1, num_intervals=5)
        TwoPhaseLearning(module, 1)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, relu = module(ours), F.relu(theirs)
        y.backward(grad)
        relu.backward(grad)
        assert torch.equal(y.detach().view(torch.int32), relu.detach().view(torch.int32))
        assert torch.equal(ours.grad.view(torch.int32), theirs.grad.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_phase_1_keeps_dtype_and_layout(dtype: torch.dtype) -> None:
    module = PWLU(3)
    TwoPhaseLearning(module, 1)
    x = torch.randn(2, 3, 4, 4).to(dtype, memory_format=torch.channels_last)
    y = module(x)
    assert torch.equal(y, F.relu(x)) and y.stride() == x.stride()


def test_evaluation_in_phase_1() -> None:
    """Nothing is collected, and the function is what it starts as."""
    module = PWLU(2)
    phases = TwoPhaseLearning(module, 2)
    module.eval()
    x = batches(2, 6, 2)[1]
    assert torch.equal(module(x), x.relu())
    feed(module, phases, [])
    assert not module.running_mean.any() and not module.running_std.any()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_parameters_move_in_phase_2_only(name: str) -> None:
    """Neither by weight decay nor by momentum; the rest of the network learns."""
    model = small_network()
    phases, optimizer = TwoPhaseLearning(model, 5), make_optimizer(name, model)
    own = {id(p) for site in (model[1], model[4]) for p in site.parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    assert train(model, phases, optimizer, range(4)) == [False] * 4
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, start) == (id(parameter) in own)
        assert (parameter in optimizer.state) == (id(parameter) not in own)
        assert parameter.requires_grad
    assert train(model, phases, optimizer, range(4, 5)) == [True]
    before = [p.detach().clone() for p in model.parameters()]
    train(model, phases, optimizer, range(5, 20))
    for (key, parameter), start in zip(model.named_parameters(), before, strict=True):
        assert not torch.equal(parameter, start), key


@pytest.mark.parametrize("phase1_steps", [0, 1])
def test_gradients_before_the_step(phase1_steps: int) -> None:
    """Phase I has none of the PWLUs, so that weight decay, momentum and clipping pass them by."""
    model = small_network()
    phases = TwoPhaseLearning(model, phase1_steps)
    model(torch.randn(2, 1, 6, 6)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    phases.before_optimizer_step()
    dropped = {key for key, p in model.named_parameters() if p.grad is None}
    assert dropped == {key for key, _ in model.named_parameters() if phases.phase == 1 and key[0] in "14"}


# Realignment (Eq. 6)


def test_realignment_is_equation_6() -> None:
    module = PWLU(3, num_intervals=6)
    pointers = [t.data_ptr() for t in (*module.parameters(), *module.buffers())]
    phases = TwoPhaseLearning(module, 2)
    assert (phases.phase, phases.step_count) == (1, 0)
    assert feed(module, phases, *([x] for x in batches(4, 20, 3))) == [False, True, False, False]
    assert (phases.phase, phases.step_count) == (2, 4)
    mean, std = module.running_mean, module.running_std
    first, second = (mean_and_std(x, (0,)) for x in batches(2, 20, 3))
    assert_statistics(module, 0.9 * first[0] + 0.1 * second[0], 0.9 * first[1] + 0.1 * second[1])
    torch.testing.assert_close(module.left.detach(), mean - 3 * std)
    torch.testing.assert_close(module.right.detach(), mean + 3 * std)
    knots = module.left[:, None] + torch.arange(7) * (module.right - module.left)[:, None] / 6
    torch.testing.assert_close(module.points.detach(), knots.detach().relu())
    assert module.left_slope.tolist() == [0.0] * 3 and module.right_slope.tolist() == [1.0] * 3
    assert [t.data_ptr() for t in (*module.parameters(), *module.buffers())] == pointers


def test_channel_whose_input_never_varied() -> None:
    """A dead channel keeps a width that its function can learn with."""
    module = PWLU(3, bound=2.0)
    x = torch.tensor([0.0, 5.0, 0.0]).expand(8, 3).clone()
    x[:, 2] = torch.linspace(-1, 1, 8)
    feed(module, TwoPhaseLearning(module, 1), [x])
    assert module.left.tolist()[:2] == [-2.0, 3.0] and module.right.tolist()[:2] == [2.0, 7.0]
    spread = 3 * x[:, 2].std(correction=0).item()
    assert module.right[2].item() == pytest.approx(spread)
    torch.testing.assert_close(module(x)[:, :2], x[:, :2])


# Other schedules


def test_no_phase_1() -> None:
    """The paper's fix-init: what the module is, it stays, and it learns from the first step."""
    model = small_network()
    bent = copy.deepcopy(model)
    phases, optimizer = TwoPhaseLearning(model, 0), make_optimizer("sgd", model)
    assert phases.phase == 2
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), bent.parameters(), strict=True))
    assert train(model, phases, optimizer, range(2)) == [False, False]
    assert not torch.equal(model[1].left, bent[1].left) and phases.step_count == 2
    TwoPhaseLearning(model, 3)  # resets what was learned
    assert torch.equal(model[1].points, PWLU(4, 6).points)


def test_model_without_pwlu() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    phases, optimizer = TwoPhaseLearning(model, 2), make_optimizer("sgd", model)
    assert phases.phase == 2
    assert train(model, phases, optimizer, range(3)) == [False] * 3


def test_module_used_at_two_places_is_one_site() -> None:
    shared = PWLU(1)
    phases = TwoPhaseLearning(nn.Sequential(shared, nn.Linear(4, 4), shared), 2)
    x, y = batches(2, 3, 4)
    feed(shared, phases, [x, y])
    assert_statistics(shared, *mean_and_std(torch.cat([x, y]), (0, 1)))


@pytest.mark.parametrize(("inputs", "parameters"), [("float64", "float32"), ("float32", "float64")])
def test_dtypes_that_phase_2_would_refuse_are_refused_at_once(inputs: str, parameters: str) -> None:
    module = PWLU(2, dtype=getattr(torch, parameters))
    TwoPhaseLearning(module, 1)
    with pytest.raises(ValueError, match=f"`left` must be torch.{inputs} .* but is torch.{parameters}"):
        module(torch.randn(3, 2, dtype=getattr(torch, inputs)))


def test_cast_parameters_are_refused_at_once() -> None:
    """As FSDP2's mixed precision makes them."""
    module = PWLU(2)
    TwoPhaseLearning(module, 1)
    cast = {name: parameter.bfloat16() for name, parameter in module.named_parameters()}
    with pytest.raises(ValueError, match="stay float32.*MixedPrecisionPolicy.*fully_shard"):
        torch.func.functional_call(module, cast, torch.randn(3, 2))

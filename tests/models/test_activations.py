"""The activations that are this project's own code: formulas, gradients, precision, layouts, errors."""

import copy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import mark, raises
from torch import nn

from models import ACTIVATIONS, APL, PAU, FReLU, activation_factory, is_activation
from models.pau import fit_leaky_relu
from pwlu import PWLU

OWN = {"apl": partial(APL, 6), "pau": PAU, "frelu": partial(FReLU, 6)}


def randomised(module, seed=0):
    """The module with every parameter moved away from its special start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return module


def test_pau_is_its_formula():
    pau = randomised(PAU()).double()
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    top = np.polyval(pau.numerator.detach().numpy()[::-1], x.numpy())
    inner = np.polyval([*pau.denominator.detach().numpy()[::-1], 0.0], x.numpy())
    assert (inner < 0).any() and (inner > 0).any()
    np.testing.assert_allclose(pau(x).detach().numpy(), top / (1 + np.abs(inner)), rtol=1e-12)


@mark.parametrize("training", [True, False])
def test_frelu_is_its_formula(training):
    frelu = randomised(FReLU(2)).double().train(training)
    x = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    condition = torch.einsum("nchwij,cij->nchw", windows, frelu.conv.weight[:, 0])
    if training:
        mean, var = condition.mean((0, 2, 3)), condition.var((0, 2, 3), unbiased=False)
    else:
        mean, var = torch.zeros(2), torch.ones(2)
    scale = frelu.norm.weight / (var + 1e-5).sqrt()
    condition = (condition - mean[:, None, None]) * scale[:, None, None] + frelu.norm.bias[:, None, None]
    y = frelu(x)
    torch.testing.assert_close(y, torch.where(x > condition, x, condition))
    assert 0 < (y == x).sum() < x.numel()


@mark.parametrize("name", OWN)
def test_gradients(name):
    module = randomised(OWN[name]()).double()
    x = torch.randn(
        2, 6, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True
    )
    names, parameters = zip(*module.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    inputs = (x, *(parameter.detach().requires_grad_() for parameter in parameters))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, atol=1e-4)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    hinges=st.integers(1, 4),
    channels=st.integers(1, 4),
    size=st.lists(st.integers(0, 4), min_size=0, max_size=3),
    last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_apl_is_its_formula_in_plain_torch(hinges, channels, size, last, seed):
    """The paper's section 4.6; values and gradients, with the channels in dimension 1 or last."""
    apl = randomised(APL(channels, hinges, channel_dim=-1 if last else 1), seed).double()
    shape, view = ((2, *size, channels), (-1,)) if last else ((2, channels, *size), (-1, *[1] * len(size)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inputs = (x.requires_grad_(), apl.slopes, apl.hinges)
    plain = x.relu()
    for slope, hinge in zip(apl.slopes, apl.hinges, strict=True):
        plain = plain + slope.view(view) * (hinge.view(view) - x).relu()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    torch.testing.assert_close(apl(x), plain)
    ours, theirs = (torch.autograd.grad(y, inputs, weight) for y in (apl(x), plain))
    torch.testing.assert_close(ours, theirs)


def test_apl_starts_as_relu_and_is_not_stuck():
    torch.manual_seed(0)
    apl = APL(4)
    x = torch.randn(64, 4, 3, 3)
    assert torch.equal(apl(x), x.relu())
    optimizer = torch.optim.SGD(apl.parameters(), lr=0.1)
    for _ in range(2):  # in the first step only the slopes have a gradient
        optimizer.zero_grad()
        (apl(x) - F.silu(x)).square().mean().backward()
        assert apl.slopes.grad.all()
        optimizer.step()
    assert apl.hinges.grad.all()
    assert len(apl.slopes.detach().unique()) == apl.slopes.numel()


def test_pau_starts_close_to_leaky_relu():
    x = torch.linspace(-3, 3, 601)
    error = PAU()(x) - F.leaky_relu(x, 0.01)
    assert error.abs().max() < 0.04 and error.square().mean().sqrt() < 0.006
    assert (PAU()(x) - x.relu()).abs().max() < 0.045
    inner = np.polyval([*fit_leaky_relu()[1][::-1], 0.0], x.numpy())
    assert inner.min() > -1e-12  # the fit leaves the absolute value out


@mark.parametrize("name", ACTIVATIONS)
@mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name, dtype):
    torch.manual_seed(0)
    module = activation_factory(name)(6)
    conv = nn.Conv2d(6, 6, 1)
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        y = module(conv(x))
    assert y.dtype == dtype
    y.float().square().sum().backward()
    reference = module(conv(x.detach()))
    torch.testing.assert_close(y.float(), reference, atol=0.05, rtol=0.05)
    assert x.grad.isfinite().all()
    for parameter in module.parameters():
        assert parameter.dtype == torch.float32 and parameter.grad.isfinite().all()


@mark.parametrize("name", ACTIVATIONS)
def test_layout_is_kept_and_does_not_matter(name):
    torch.manual_seed(0)
    module = activation_factory(name)(6)
    x = torch.randn(2, 6, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    y = module(last)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, module(x))


@mark.parametrize("name", OWN)
def test_compiles_without_a_graph_break(name):
    module = randomised(OWN[name]()).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    grads = []
    for run in (module, compiled):
        y = run(x)
        grads.append((y, *torch.autograd.grad(y.square().sum(), (x, *module.parameters()))))
    torch.testing.assert_close(grads[1], grads[0])


@mark.parametrize("name", ["apl", "pau"])
def test_only_the_input_is_kept_for_backward(name):
    module = OWN[name]()
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module(x)
    parameters = sum(p.numel() for p in module.parameters())
    assert sum(kept) == x.numel() + parameters


@mark.parametrize("name", ACTIVATIONS)
def test_edges(name):
    """An empty batch, NaN, a copy, a saved state."""
    module = randomised(activation_factory(name)(6)).eval()
    assert module(torch.zeros(0, 6, 3, 3)).shape == (0, 6, 3, 3)
    x = torch.zeros(1, 6, 3, 3)
    x[0, 2, 1, 1] = torch.nan
    assert module(x)[0, 2, 1, 1].isnan() and module(x)[0, 3].isfinite().all()
    clone = activation_factory(name)(6).eval()
    clone.load_state_dict(module.state_dict())
    x = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clone(x), module(x)) and torch.equal(copy.deepcopy(module)(x), module(x))


def test_factory_makes_the_named_activation():
    kinds = {
        "relu": nn.ReLU,
        "swish": nn.SiLU,
        "prelu": nn.PReLU,
        "apl": APL,
        "pau": PAU,
        "frelu": FReLU,
        "pwlu": PWLU,
        "leaky_relu": nn.LeakyReLU,
    }
    assert list(kinds) == list(ACTIVATIONS)
    for name, kind in kinds.items():
        module = activation_factory(name)(6)
        assert type(module) is kind
        assert is_activation(module) == any(True for _ in module.parameters())
        assert activation_factory(name)(6) is not module
    assert activation_factory("original") is None
    assert activation_factory("leaky_relu")(6)(torch.tensor([-4.0, 3.0])).tolist() == [-1.0, 3.0]
    assert not is_activation(nn.BatchNorm2d(6)) and not is_activation(nn.Conv2d(6, 6, 1))


def test_pwlu_s_options():
    module = activation_factory("pwlu", num_intervals=8, mode="layer", bound=6.0)(6)
    assert (module.num_parameters, module.num_intervals, module.bound) == (1, 8, 6.0)
    x = torch.linspace(-7, 7, 29)
    start = activation_factory("pwlu", init="leaky_relu", init_slope=0.5)(6).start
    assert torch.equal(start(x), F.leaky_relu(x, 0.5))
    assert torch.equal(activation_factory("pwlu", init="silu", init_slope=0.25)(6).start(x), F.silu(x))
    assert activation_factory("pwlu")(6, channel_dim=-1).channel_dim == -1
    assert activation_factory("prelu")(6).weight.tolist() == [0.25] * 6


@mark.parametrize(
    "call, words",
    [
        (
            lambda: activation_factory("pwul"),
            "activation name is 'pwul', expected one of relu, .*did you mean 'pwlu'",
        ),
        (lambda: activation_factory("x"), "activation name is 'x', expected one of relu, swish, .*original$"),
        (
            lambda: activation_factory("pwlu", mode="layers"),
            "activation mode is 'layers', expected .*channel, layer",
        ),
        (lambda: APL(0), "APL: `num_channels` and `num_hinges` must be >= 1, but are 0 and 3"),
        (lambda: APL(4)(torch.zeros(2, 5, 3)), r"APL: the input has 5 channels in dimension 1 .*expected 4"),
    ],
)
def test_errors(call, words):
    with raises(ValueError, match=words):
        call()

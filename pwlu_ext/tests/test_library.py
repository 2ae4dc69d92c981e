"""The operator as torch sees it: schema, fake kernels, FLOPs, saved tensors, autocast."""

import operator
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

import pwlu as package
from pwlu import PWLU, pwlu
from pwlu_ext.tests.helpers import DTYPES, random_gradient, random_parameters, spread_inputs


def samples() -> dict[str, tuple[Tensor, ...]]:
    channel_wise, layer_wise = random_parameters(3, 5), random_parameters(1, 5)
    x = spread_inputs((2, 3, 4, 5), channel_wise)
    spaced_points = (*channel_wise[:2], channel_wise[2].t().contiguous().t(), *channel_wise[3:])
    return {
        "channel-wise": (x, *channel_wise),
        "layer-wise": (x, *layer_wise),
        "channels_last": (x.to(memory_format=torch.channels_last), *channel_wise),
        "permuted": (x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2), *channel_wise),
        "sliced": (x[..., ::2], *channel_wise),
        "expanded": (x[..., :1].expand(2, 3, 4, 5), *channel_wise),
        "empty": (x[:0], *channel_wise),
        "points of other strides": (x, *spaced_points),
        "bfloat16": (x.bfloat16(), *channel_wise),
        "float64": tuple(t.double() for t in (x, *channel_wise)),
    }


@pytest.mark.parametrize("sample", samples())
def test_opcheck_forward(device: str, sample: str) -> None:
    arguments = [tensor.to(device).requires_grad_() for tensor in samples()[sample]]
    opcheck(torch.ops.pwlu.forward.default, (*arguments, 1))


@pytest.mark.parametrize("sample", samples())
def test_opcheck_backward(device: str, sample: str) -> None:
    arguments = [tensor.to(device) for tensor in samples()[sample]]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(
        torch.ops.pwlu.backward.default, (random_gradient(arguments[0]), *arguments, 1), test_utils=checks
    )


def test_meta_tensors_go_through(device: str) -> None:
    module = PWLU(3, device="meta")
    y = module(torch.empty(2, 3, 4, 4, device="meta"))
    assert y.shape == (2, 3, 4, 4) and y.is_meta
    module = module.to_empty(device=device)
    module.reset_parameters()
    x = torch.randn(2, 3, 4, 4, device=device)
    torch.testing.assert_close(module(x), x.relu())


def test_flops_are_counted() -> None:
    parameters = random_parameters(3, 16)
    x = spread_inputs((2, 3, 10), parameters).requires_grad_()
    with FlopCounterMode(display=False) as forward:
        y = pwlu(x, *parameters)
    with FlopCounterMode(display=False) as both:
        pwlu(x, *parameters).sum().backward()
    assert forward.get_total_flops() == 5 * y.numel()
    assert both.get_total_flops() == 13 * y.numel()


def test_input_changed_in_place_before_backward_is_an_error() -> None:
    parameters = random_parameters(1, 4)
    x = torch.randn(5, requires_grad=True) * 1
    y = pwlu(x, *parameters)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autocast_keeps_the_dtype_of_x(device: str, dtype: torch.dtype) -> None:
    # A rule of its own would make the output float32, and lose the memory that autocast saves.
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(3, 4, kept, device)
    x = spread_inputs((2, 3, 5), parameters, dtype=dtype)
    with torch.autocast(device, torch.bfloat16):
        y = pwlu(x, *parameters)
    assert y.dtype == dtype and torch.equal(y, pwlu(x, *parameters))


def test_a_network_under_autocast(device: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), PWLU(4), nn.Conv2d(4, 4, 3), PWLU(4)).to(device)
    with torch.autocast(device, torch.bfloat16):
        y = network(torch.randn(2, 2, 8, 8, device=device))
        y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert network[1].points.grad.any() and network[3].left.grad.isfinite().all()


def test_public_names_are_documented_and_hide_no_module() -> None:
    assert {"PWLU", "TwoPhaseLearning", "FoldReport", "pwlu", "pwlu_reference"} <= set(package.__all__)
    assert all(getattr(package, name).__doc__ for name in package.__all__)
    for name in [name for name in sys.modules if name.startswith("pwlu.")]:
        assert operator.attrgetter(name.removeprefix("pwlu."))(package) is sys.modules[name]

"""The calls that the benchmarks of the operator compare: PWLU, its neighbours in torch, and plain torch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pwlu

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """What a set of calls works on: keys of DTYPES and FORMATS, channel-wise or layer-wise, the paper's N."""

    dtype: str = "float32"
    memory_format: str = "contiguous"
    functions: str = "channel-wise"
    num_intervals: int = 16

    def describe(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return what a row of a record is about."""
        return {"shape": list(shape), **asdict(self), "threads": torch.get_num_threads()}

    def inputs(self, shape: tuple[int, ...], device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Return x and d loss / d y, normally distributed."""
        torch.manual_seed(0)
        layout, dtype = FORMATS[self.memory_format], DTYPES[self.dtype]
        x, grad = (
            torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(2)
        )
        return x, grad

    def layer(self, shape: tuple[int, ...], device: str = "cpu") -> pwlu.PWLU:
        """Return a fresh PWLU on [-3, 3]."""
        functions = 1 if self.functions == "layer-wise" else shape[1]
        return pwlu.PWLU(functions, self.num_intervals, device=device)

    def parameters(self, shape: tuple[int, ...], device: str = "cpu") -> list[Tensor]:
        """Return those of the layer, in the order of `pwlu.pwlu`."""
        layer = self.layer(shape, device)
        tensors = (layer.left, layer.right, layer.points, layer.left_slope, layer.right_slope)
        return [tensor.detach() for tensor in tensors]


def operator_calls(case: Case, shape: tuple[int, ...], device: str = "cpu") -> Calls:
    """Return PWLU and elementwise operations of torch; `pwlu backward` gives all six gradients."""
    x, grad = case.inputs(shape, device)
    parameters = case.parameters(shape, device)
    y = torch.empty_like(x)
    aten, ops = torch.ops.aten, torch.ops.pwlu
    return {
        "copy": lambda: y.copy_(x),
        "relu": lambda: F.relu(x),
        "silu": lambda: F.silu(x),
        "pwlu": lambda: ops.forward(x, *parameters, 1),
        "relu backward": lambda: aten.threshold_backward(grad, x, 0),
        "silu backward": lambda: aten.silu_backward(grad, x),
        "pwlu backward": lambda: ops.backward(grad, x, *parameters, 1),
    }


def folded_calls(case: Case, shape: tuple[int, ...], device: str, compiled: bool) -> Calls:
    """Return the form for inference of section 4.3, as `pwlu.fold` makes it; compiled too if asked for."""
    x, _ = case.inputs(shape, device)
    layer = pwlu.fold(case.layer(shape, device))
    calls: Calls = {"folded": torch.no_grad()(lambda: layer(x))}
    if compiled:
        torch.compiler.reset()  # each case is compiled anew, below torch's limit of recompilations
        function = torch.compile(layer, dynamic=False)
        calls["folded compiled"] = torch.no_grad()(lambda: function(x))
    return calls


def slow_calls(case: Case, shape: tuple[int, ...]) -> Calls:
    """Return PReLU, whose backward pass is slow, and PWLU in plain torch, eager and compiled."""
    x, grad = case.inputs(shape)
    parameters = case.parameters(shape)
    weight = torch.full((shape[1],), 0.25)
    learned = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
    compiled = torch.compile(pwlu.pwlu_reference, dynamic=False)

    def backward_of(function: Callable[..., Tensor]) -> Callable[[], object]:
        y = function(*learned)
        return lambda: torch.autograd.grad(y, learned, grad, retain_graph=True)

    return {
        "prelu": lambda: F.prelu(x, weight),
        "reference": lambda: pwlu.pwlu_reference(x, *parameters),
        "compiled reference": lambda: compiled(x, *parameters),
        "prelu backward": lambda: torch.ops.aten._prelu_kernel_backward(grad, x, weight.view(1, -1, 1, 1)),
        "reference backward": backward_of(pwlu.pwlu_reference),
        "compiled reference backward": backward_of(compiled),
    }


def batch_norm_calls(case: Case, shape: tuple[int, ...]) -> Calls:
    """Return training-mode BatchNorm with what comes behind it, forward and backward through autograd.

    ReLU works in place; "fused" is BatchNorm and PWLU as one operator.
    """
    x, grad = case.inputs(shape)
    x.requires_grad_()

    def network(activation: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm2d(shape[1]), activation)

    fused = network(case.layer(shape))
    pwlu.fuse_batch_norm(fused, input_size=shape[1:])
    networks = {"relu": network(nn.ReLU(inplace=True)), "pwlu": network(case.layer(shape)), "fused": fused}

    def both(network: nn.Module) -> Callable[[], object]:
        inputs = [x, *network.parameters()]
        return lambda: torch.autograd.grad(network(x), inputs, grad)

    copy = torch.empty_like(x)
    calls: Calls = {"copy": torch.no_grad()(lambda: copy.copy_(x))}
    return calls | {name: both(network) for name, network in networks.items()}


def autograd_calls(shape: tuple[int, ...]) -> Calls:
    """Return `pwlu.pwlu` and `F.prelu` as users call them, without, with and through autograd."""
    x, grad = Case().inputs(shape)
    parameters = Case().parameters(shape)
    weight = torch.full((shape[1],), 0.25)
    x_learned, weight_learned = x.clone().requires_grad_(), weight.clone().requires_grad_()
    learned = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]

    def both(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*inputs), inputs, grad)

    return {
        "prelu": lambda: F.prelu(x, weight),
        "pwlu": lambda: pwlu.pwlu(x, *parameters),
        "prelu recorded": lambda: F.prelu(x_learned, weight_learned),
        "pwlu recorded": lambda: pwlu.pwlu(*learned),
        "prelu forward + backward": both(F.prelu, [x_learned, weight_learned]),
        "pwlu forward + backward": both(pwlu.pwlu, learned),
    }

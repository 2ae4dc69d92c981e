"""The operator: shapes, gradients and FLOP count. Its schema and kernels are C++ (csrc/)."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from .fused.normalizing import Normalizing
from .library import accept_any_layout, check_device
from .reference import pwlu_reference

FORWARD, BACKWARD = torch.ops.pwlu.forward.default, torch.ops.pwlu.backward.default
accept_any_layout(FORWARD, BACKWARD)
RECORDED = "pwlu: the operator pwlu::forward is recorded"
_PLAIN_INSTEAD = "For plain operators take pwlu.fold(model), which leaves no PWLU in the network."


def pwlu(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    points: Tensor,
    left_slope: Tensor,
    right_slope: Tensor,
    *,
    channel_dim: int = 1,
) -> Tensor:
    """Apply the Piecewise Linear Unit (Eq. 1) with the compiled kernels.

    Equivalent to `pwlu.pwlu_reference`, with its gradients (Table 1). Two runs give the same bits.
    Gradients of gradients, forward-mode differentiation and torch.func (grad, jvp, vmap ...) are right too,
    at the reference's speed.

    Args:
        x: input of shape (N, C, *) in any memory layout, float64, float32, float16 or bfloat16.
        left: B_L, shape (G,), float32 (float64 if x is). G is 1 (layer-wise) or C (channel-wise).
        right: B_R, shape (G,). Where right <= left the left tail serves x < left, the right one the rest.
        points: Y_P, shape (G, num_intervals + 1).
        left_slope: K_L, shape (G,).
        right_slope: K_R, shape (G,).
        channel_dim: the dimension of x that holds the channels (-1 for transformers); ignored if G is 1.

    Returns:
        y with the shape, dtype and strides of x. Arithmetic is float32, or float64 for a float64 x.

    Raises:
        ValueError: an argument has a wrong dtype, shape or device; the message names it.
        RuntimeError: no kernels were built for the device of x; the message holds the build command.
    """
    if isinstance(x, Normalizing):  # in a graph of torch.fx, say
        x = x.value()
    if is_transformed():
        return pwlu_reference(x, left, right, points, left_slope, right_slope, channel_dim=channel_dim)
    if not x.is_cpu:
        check_device(x.device)
    arguments = (x, left, right, points, left_slope, right_slope, channel_dim)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        if torch.jit.is_tracing():
            _point_to_fold()
        return FORWARD(*arguments)  # what is recorded is the operator
    # FORWARD comes to _Forward too, through the dispatcher, at about a fifth more per call on a tiny tensor;
    # torch.library.register_autograd would more than double it ("single_call" of benchmarks/operator_cpu.py).
    if torch.is_grad_enabled():
        return _Forward.apply(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return FORWARD(*arguments)


def is_transformed() -> bool:
    """Return whether torch.func or forward-mode differentiation is at work."""
    # Our operators have no rule for them; without one, torch drops the tangents in silence.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _point_to_fold() -> None:
    """Name the way out of Python to who records the operator, which no other runtime has."""
    if torch.onnx.is_in_onnx_export():
        raise RuntimeError(f"pwlu: ONNX has no operator for a PWLU. {_PLAIN_INSTEAD}")
    warnings.warn(f"{RECORDED}, which loads only where pwlu is imported. {_PLAIN_INSTEAD}", stacklevel=2)


@torch.library.register_fake("pwlu::forward")
def _forward_fake(x: Tensor, *parameters_and_channel_dim: Any) -> Tensor:
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        _point_to_fold()
    _check_same_device(x, *parameters_and_channel_dim[:5])
    return torch.empty_like(x)


@torch.library.register_fake("pwlu::backward")
def _backward_fake(grad: Tensor, x: Tensor, *parameters_and_channel_dim: Any) -> tuple[Tensor, ...]:
    parameters = parameters_and_channel_dim[:5]
    _check_same_device(x, *parameters)
    of_parameters = (torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters)
    return (torch.empty_like(x), *of_parameters)


def _check_same_device(x: Tensor, *parameters: Tensor) -> None:
    # A meta tensor among the arguments brings the call here, past the checks of the kernels.
    names = ("left", "right", "points", "left_slope", "right_slope")
    for name, parameter in zip(names, parameters, strict=True):
        if parameter.device != x.device:
            raise ValueError(
                f"pwlu: `{name}` is on {parameter.device}, but x is on {x.device}. "
                "Move the module with .to(x.device)."
            )


def _forward(*arguments: Any) -> Tensor:
    """Call the forward kernel so that autograd knows its gradient."""
    if is_transformed():
        *tensors, channel_dim = arguments
        return pwlu_reference(*tensors, channel_dim=channel_dim)
    return _Forward.apply(*arguments)


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    """Call the backward kernel so that autograd knows its gradient: for gradients of gradients."""
    if is_transformed():
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                "pwlu::backward: torch.func cannot transform it; transform pwlu.pwlu instead."
            )
        return _reference_backward(*arguments)
    if torch.is_grad_enabled():
        return _Backward.apply(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return BACKWARD(*arguments)


class _Forward(torch.autograd.Function):
    # Only x and the parameters are kept for the backward pass.

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, ctx.channel_dim = arguments
        ctx.save_for_backward(*tensors)
        with torch._C._AutoDispatchBelowAutograd():
            return FORWARD(*arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Table 1, all of it in one pass: csrc/pwlu.h has slope_at, curve_gradient (B_L, B_R, K_L, K_R) and
        # point_gradient (Y_P).
        return (*_backward(grad, *ctx.saved_tensors, ctx.channel_dim), None)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *tensors, ctx.channel_dim = arguments
        ctx.save_for_backward(*tensors)
        with torch._C._AutoDispatchBelowAutograd():
            return BACKWARD(*arguments)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Differentiate the reference's backward pass: slow and exact. A second derivative is rarely needed.
        create_graph = torch.is_grad_enabled()  # a third derivative is wanted
        with torch.enable_grad():
            # An alias to differentiate with respect to: what led to a tensor itself, e.g. x from left, stays
            # out. Unlike detach, view_as keeps a tangent.
            grad, *inputs = (tensor.view_as(tensor).requires_grad_() for tensor in ctx.saved_tensors)
            first = _reference_backward(grad, *inputs, ctx.channel_dim)
            second = torch.autograd.grad(
                [g for g, upper in zip(first, grads, strict=True) if upper is not None],
                [grad, *inputs],
                [upper for upper in grads if upper is not None],
                create_graph=create_graph,
                allow_unused=True,
            )
        return (*second, None)


def _reference_backward(grad: Tensor, *inputs_and_channel_dim: Any) -> tuple[Tensor, ...]:
    """Return all six gradients, as a differentiable function of all arguments."""
    *inputs, channel_dim = inputs_and_channel_dim
    reference = partial(pwlu_reference, channel_dim=channel_dim)
    return torch.func.vjp(reference, *inputs)[1](grad)


_LIBRARY = torch.library.Library("pwlu", "IMPL")  # the kernels are registered for as long as it lives
_LIBRARY.impl("forward", _forward, "Autograd")
_LIBRARY.impl("backward", _backward, "Autograd")


@register_flop_formula(torch.ops.pwlu.forward)
def _forward_flops(x_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    # Per element: position (subtract, multiply), coordinate (subtract), value (multiply, add).
    return 5 * torch.Size(x_shape).numel()


@register_flop_formula(torch.ops.pwlu.backward)
def _backward_flops(grad_shape: Sequence[int], x_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    # Per element: coordinate (3), grad_x (2), the two sums (add; multiply, add).
    return 8 * torch.Size(x_shape).numel()

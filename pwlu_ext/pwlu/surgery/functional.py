"""Activations that are no modules: which ATen operators of a forward compute one."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# The ATen operators (in-place forms have a "_" more) behind F.relu and its relatives, and the latters' names.
FUNCTIONS = {"_prelu_kernel": "F.prelu", "rrelu_with_noise": "F.rrelu", "threshold": "F.threshold"} | {
    name: f"F.{name}"
    for name in ("relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "softplus")
}
SQUASHING = {"sigmoid", "tanh", "erf", "exp", "softplus", "hardsigmoid", "hardtanh"} | {
    *("clamp", "clamp_min", "clamp_max")
}
ELEMENTWISE = SQUASHING | {
    *("add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "abs", "pow", "square", "sqrt", "rsqrt"),
    *("log", "log1p", "clone", "_to_copy"),
}


class _Derived(NamedTuple):
    """A tensor computed element by element from `source`; `squashing` names the last squashing operator."""

    # Both tensors are referenced, so that no other one takes their place in memory.
    tensor: Tensor
    source: Tensor
    squashing: str = ""


class ActivationFinder:
    """Names the activations among the operators of a forward, which are shown to it one after another.

    Besides F.relu and its like it knows x * g(x) and x / g(x), where g squashes: Swish, quick GELU, hard
    Swish, EvoNorm ... written out. It follows which tensor was computed from which.
    """

    def __init__(self) -> None:
        self._derived: dict[tuple[int, int], _Derived] = {}

    def name(self, func: Any, args: tuple[Any, ...], output: Any) -> str | None:
        """Return the activation that this call of an ATen operator computes, None if it computes none."""
        if not _is_plain(output):
            return None
        name: str = func.overloadpacket.__name__
        operator = name if name.startswith("_") else name.rstrip("_")  # "_" ends the name of an in-place form
        product = self._product(operator, args)
        derived = None if product else self._follow(operator, args, output)
        if derived is not None:
            self._derived[_place(output)] = derived
        elif func._schema.is_mutable:
            self._derived.pop(_place(output), None)
        return product or FUNCTIONS.get(operator) or _rectifier(operator, args, output)

    def _product(self, operator: str, args: tuple[Any, ...]) -> str | None:
        # x * g(x) or x / g(x), where g squashes
        if operator not in ("mul", "div") or len(args) != 2 or not all(map(_is_plain, args)):
            return None
        a, b = map(self._origin, args)
        one_squashes = bool(a.squashing) != bool(b.squashing)
        if args[0].shape != args[1].shape or _place(a.source) != _place(b.source) or not one_squashes:
            return None
        return f"x {'*' if operator == 'mul' else '/'} {a.squashing or b.squashing}(x)"

    def _follow(self, operator: str, args: tuple[Any, ...], output: Tensor) -> _Derived | None:
        """Return what `output` was computed from, if that is one tensor of its own shape."""
        origins = [self._origin(a) for a in args if _is_plain(a) and a.shape == output.shape]
        places = {_place(origin.source) for origin in origins}
        if operator not in ELEMENTWISE or len(places) != 1 or _place(output) in places:
            return None
        earlier = next((origin.squashing for origin in origins if origin.squashing), "")
        return _Derived(output, origins[0].source, operator if operator in SQUASHING else earlier)

    def _origin(self, tensor: Tensor) -> _Derived:
        return self._derived.get(_place(tensor)) or _Derived(tensor, tensor)


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided


def _place(tensor: Tensor) -> tuple[int, int]:
    # Where the data begins: views of the whole of it begin there too.
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _rectifier(operator: str, args: tuple[Any, ...], output: Tensor) -> str | None:
    # ReLU, ReLU6 and the thresholded linear unit in other words. Any other clamp is a gate or a guard.
    if operator == "maximum":
        return "maximum(x, t)" if any(a.shape != output.shape for a in args[:2]) else None
    low, high = (*args[1:3], None, None)[:2]
    if operator not in ("hardtanh", "clamp", "clamp_min") or not isinstance(low, int | float) or low != 0:
        return None
    if operator == "hardtanh":
        return "F.relu6"
    return "clamp(min=0)" if high is None else None

"""What one forward shows about a model's activations: their inputs, and which are called as functions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from .sites import Call, Slot, is_gate

# The ATen operators (in-place forms have a "_" more) behind F.relu and its relatives, and the latters' names.
FUNCTION_NAMES = {"_prelu_kernel": "prelu", "rrelu_with_noise": "rrelu"} | {
    name: name for name in ("relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish")
}


@dataclass(eq=False)
class FunctionalUse:
    """An activation called as a function (`F.relu(x)`) in the forward of the module named `name`."""

    name: str
    function: str
    calls: list[Call] = field(default_factory=list)


def measure(
    model: nn.Module, slots: list[Slot], input_size: tuple[int, ...], channel_dim: int | None
) -> list[FunctionalUse]:
    """Run `model` once on a batch of one all-zero input and record every call of every slot.

    The forward runs in eval mode, without gradients, on the model's own device and dtype; training flags
    and buffers are put back afterwards. Returns the activations that were called as functions.
    """
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    zeros = torch.zeros((1, *input_size), device=first.device, dtype=first.dtype)
    with (
        _own_modules(slots),
        _as_found(model),
        _Recorder(model, slots, channel_dim) as recorder,
        torch.no_grad(),
    ):
        model(zeros)
    return list(recorder.functional.values())


@contextmanager
def _own_modules(slots: list[Slot]) -> Iterator[None]:
    """Give each slot a module object of its own while it is measured, so that calls can be told apart."""
    found = [slot.module for slot in slots]
    for slot in slots:
        if found.count(slot.module) > 1:
            slot.module = copy.deepcopy(slot.module)
            slot.put(slot.module)
    try:
        yield
    finally:
        for slot, module in zip(slots, found, strict=True):
            slot.module = module
            slot.put(module)


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; restore every module's training flag and every buffer at the end."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)  # through train(), for models whose train() drops what eval mode cached
        for module, flag in flags:
            module.training = flag
        for owner, name, buffer, version, value in buffers:
            owner[name] = buffer
            if buffer._version != version:
                buffer.copy_(value)


class _Recorder(TorchDispatchMode):
    """Hooks every module and watches every operator for the length of one forward."""

    def __init__(self, model: nn.Module, slots: list[Slot], channel_dim: int | None) -> None:
        super().__init__()
        self.functional: dict[tuple[nn.Module, str], FunctionalUse] = {}
        self._model = model
        self._slots = {slot.module: slot for slot in slots}
        self._channel_dim = channel_dim
        self._names = {module: name for name, module in model.named_modules()}
        self._stack: list[nn.Module] = []
        # (width, channel dimension) of the last linear, convolution or normalisation layer entered, and of
        # the one that made each storage. The tensors are held so that no storage is used twice.
        self._last = (-1, 1)
        self._made: dict[int, tuple[Tensor, tuple[int, int]]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> _Recorder:
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._enter_module, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave_module))
        return super().__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)
        for handle in self._handles:
            handle.remove()

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in self._slots:
            self._slots[module].calls.append(self._call((*args, *kwargs.values())[0]))
        self._stack.append(module)
        self._last = self._layout(module) or self._last

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
        layout = self._layout(module)
        if layout and isinstance(output, Tensor):
            self._made[output.untyped_storage()._cdata] = (output, layout)

    def _layout(self, module: nn.Module) -> tuple[int, int] | None:
        """Width and channel dimension of a layer's output; a norm leaves the dimension where it was."""
        width = _width(module)
        if width is None or not isinstance(module, nn.Linear | _ConvNd):
            return None if width is None else (width, self._last[1])
        return width, -1 if isinstance(module, nn.Linear) else 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        function = _activation_function(func, args)
        if function and not any(module in self._slots or is_gate(module) for module in self._stack):
            place = self._stack[-1] if self._stack else self._model
            use = FunctionalUse(self._names[place], function)
            self.functional.setdefault((place, function), use).calls.append(self._call(args[0]))
        return func(*args, **(kwargs or {}))

    def _call(self, x: Tensor) -> Call:
        dim = self._inferred_dim(x) if self._channel_dim is None else self._channel_dim
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(
                f"an activation's input of shape {tuple(x.shape)} has no channel dimension {dim}"
            )
        spatial = [size for i, size in enumerate(x.shape) if i not in (0, dim % x.ndim)]
        return Call(x.shape[dim], dim, tuple(spatial), x.device, x.dtype)

    def _inferred_dim(self, x: Tensor) -> int:
        """1 or -1: the one that has the width of the layer that made `x`, else that layer's own."""
        if x.ndim <= 2:
            return 1
        _, (width, layer_dim) = self._made.get(x.untyped_storage()._cdata, (None, self._last))
        matches = [dim for dim in (1, -1) if x.shape[dim] == width]
        return matches[0] if len(matches) == 1 else layer_dim


def _width(module: nn.Module) -> int | None:
    """Number of output channels of a linear, convolution or normalisation layer; None for other modules."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, _ConvNd):
        return module.out_channels
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    return module.normalized_shape[-1] if isinstance(module, nn.LayerNorm) else None


def _activation_function(func: Any, args: Any) -> str | None:
    """Name of the activation that an ATen operator computes, None for any other operator."""
    operator = func.overloadpacket.__name__
    if operator in ("hardtanh", "hardtanh_"):  # F.relu6 is hardtanh on [0, 6]; any other hardtanh is a gate
        return "relu6" if len(args) > 1 and args[1] == 0 else None
    return FUNCTION_NAMES.get(operator if operator in FUNCTION_NAMES else operator.rstrip("_"))

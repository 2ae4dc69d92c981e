"""One forward that shows what a model's activations receive, and which are called as functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from ..arguments import zero_batch
from ..evaluation import evaluation_mode
from .functional import ActivationFinder
from .sites import Call, Slot, is_gate, own_modules


@dataclass(eq=False)
class FunctionalUse:
    """An activation called as a function (`F.relu(x)`) or written out in the forward of `module`."""

    name: str
    module: nn.Module
    function: str
    calls: list[Call] = field(default_factory=list)


def measure_calls(
    model: nn.Module, slots: list[Slot], input_size: tuple[int, ...], channel_dim: int | None
) -> list[FunctionalUse]:
    """Run `model` once on zeros and record every call of every slot; return what was called as functions."""
    with own_modules(slots), evaluation_mode(model), torch.no_grad():
        with _Recorder(model, slots, channel_dim) as recorder:
            model(zero_batch(model, input_size))
    return list(recorder.functional.values())


class _Recorder(TorchDispatchMode):
    """Hooks every module and watches every operator during one forward."""

    def __init__(self, model: nn.Module, slots: list[Slot], channel_dim: int | None) -> None:
        super().__init__()
        self.functional: dict[tuple[nn.Module, str], FunctionalUse] = {}
        self._finder = ActivationFinder()
        self._slots = {slot.module: slot for slot in slots}
        self._channel_dim = channel_dim
        self._names = {module: name for name, module in model.named_modules()}
        self._stack = [model]
        # (width, channel dimension) of the last linear, convolution or normalisation layer entered, and of
        # the one that made each storage. The tensors are referenced so that no storage is used twice.
        self._last = (-1, 1)
        self._made: dict[int, tuple[Tensor, tuple[int, int]]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> _Recorder:
        for module in self._names:
            if isinstance(module, torch.jit.RecursiveScriptModule):
                continue  # takes no hooks: what it calls is noted for the module around it
            self._handles.append(module.register_forward_pre_hook(self._enter_module, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave_module))
        return super().__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)
        for handle in self._handles:
            handle.remove()

    def _enter_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in self._slots:
            self._slots[module].calls.append(self._call((*args, *kwargs.values())[0], self._channel_dim))
        self._stack.append(module)
        self._last = _layout(module, self._last[1]) or self._last

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
        layout = _layout(module, self._last[1])
        if layout and isinstance(output, Tensor) and output.ndim > 1:
            width, dim = layout
            if not isinstance(module, nn.Linear | _ConvNd):  # a norm leaves the dimension as it was
                dim = _dim_of_width(output, width, default=dim)
            self._made[output.untyped_storage()._cdata] = (output, (width, dim))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        function = self._finder.name(func, args, output)
        if function and not any(module in self._slots or is_gate(module) for module in self._stack):
            place = self._stack[-1]
            use = FunctionalUse(self._names[place], place, function)
            inputs = (a for a in args if isinstance(a, Tensor) and a.shape == output.shape)
            self.functional.setdefault((place, function), use).calls.append(self._call(next(inputs, output)))
        return output

    def _call(self, x: Tensor, channel_dim: int | None = None) -> Call:
        if x.ndim == 0:
            return Call(1, 1, (), x.device, x.dtype)
        dim = self._inferred_dim(x) if channel_dim is None else channel_dim
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(
                f"an activation's input of shape {tuple(x.shape)} has no channel dimension {dim}"
            )
        spatial = [size for i, size in enumerate(x.shape) if i not in (0, dim % x.ndim)]
        return Call(x.shape[dim], dim, tuple(spatial), x.device, x.dtype)

    def _inferred_dim(self, x: Tensor) -> int:
        # 1 or -1: in a view of a layer's output the one that has the stride of the channels there; else the
        # one that has the width of the layer that made x; else that layer's own.
        if x.ndim <= 2:
            return x.ndim - 1
        made, (width, layer_dim) = self._made.get(x.untyped_storage()._cdata, (None, self._last))
        if made is not None:
            stride = made.stride(layer_dim)
            matches = [dim for dim in (1, -1) if x.shape[dim] > 1 and x.stride(dim) == stride]
            if len(matches) == 1:
                return matches[0]
        return _dim_of_width(x, width, default=layer_dim)


def _dim_of_width(x: Tensor, width: int, default: int) -> int:
    matches = [dim for dim in (1, -1) if x.shape[dim] == width]
    return matches[0] if len(matches) == 1 else default


def _layout(module: nn.Module, last_dim: int) -> tuple[int, int] | None:
    """Return width and channel dimension of what a linear, convolution or normalisation layer makes."""
    if isinstance(module, nn.Linear):
        return module.out_features, -1
    if isinstance(module, _ConvNd):
        return module.out_channels, 1
    if isinstance(module, _NormBase):
        return module.num_features, last_dim
    if isinstance(module, nn.GroupNorm):
        return module.num_channels, last_dim
    shape = getattr(module, "normalized_shape", None)  # of nn.LayerNorm, nn.RMSNorm and timm's own
    return (shape[-1], last_dim) if isinstance(shape, Sequence) and shape else None

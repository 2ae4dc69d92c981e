"""What PWLU and its inference form have in common as layers."""

from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Layer")


class Layer(nn.Module):
    """A module that neither a cast nor a state dict takes below float32."""

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(at_least_single(fn), recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # With assign=True torch takes the tensors as they are. The dict is load_state_dict's own copy.
        own_tensors = chain(self.named_parameters(recurse=False), self.named_buffers(recurse=False))
        for name, own in own_tensors:
            loaded = state_dict.get(prefix + name)
            if isinstance(loaded, Tensor) and _is_below_single(loaded.dtype):
                state_dict[prefix + name] = loaded.detach().to(own.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError(
            f"{type(self).__name__}: torch.jit.script cannot compile it. Use torch.compile, torch.export or "
            "torch.jit.trace."
        )


def at_least_single(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `fn`, the move or cast that `nn.Module._apply` hands down, without casts below float32."""

    def keep_precision(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return tensor.to(moved.device) if _is_below_single(moved.dtype) else moved

    return keep_precision


def _is_below_single(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize < torch.float32.itemsize

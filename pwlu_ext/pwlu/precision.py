"""How a module keeps its precision when the network around it is cast to a lower one."""

from collections.abc import Callable

import torch
from torch import Tensor


def at_least_single(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `fn`, the move or cast that `nn.Module._apply` hands down, without casts below float32."""

    def keep_precision(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        return tensor.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

    return keep_precision

"""What the processes of torch.distributed do together."""

import torch.distributed as dist
from torch import Tensor


def all_reduce(tensor: Tensor, operation: str = "SUM", group: dist.ProcessGroup | None = None) -> Tensor:
    """Reduce a tensor, in place, over the processes of a group, if there are several; return it."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1:
        dist.all_reduce(tensor, getattr(dist.ReduceOp, operation), group=group)
    return tensor

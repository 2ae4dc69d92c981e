"""Parameters whose rows are spread over processes by FSDP2 (`torch.distributed.fsdp.fully_shard`)."""

import sys
from typing import Any

from torch import Tensor, nn


def is_sharded(parameter: Any) -> bool:
    """Return whether it is a DTensor."""
    return hasattr(parameter, "device_mesh")


def has_fsdp2(model: nn.Module) -> bool:
    """Return whether `fully_shard` was called for a part of the model."""
    if not any(map(is_sharded, model.parameters())):
        return False
    from torch.distributed.fsdp import FSDPModule  # slow to import, and not in every torch

    return any(isinstance(module, FSDPModule) for module in model.modules())


def reshard(model: nn.Module) -> None:
    """Let go of the parameters that FSDP2 has put together: what is written to those is lost."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # slow to import
    for module in model.modules():
        if fsdp is not None and isinstance(module, fsdp.FSDPModule):
            module.reshard()


def whole(parameter: Any) -> Tensor:
    """Return all of a parameter that may be sharded."""
    return parameter.full_tensor() if is_sharded(parameter) else parameter


def write_whole(parameter: Any, value: Tensor) -> None:
    """Copy `value`, whole and the same on all processes, into a parameter that may be sharded."""
    if is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor  # as above

        # None: nothing is sent.
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(value)

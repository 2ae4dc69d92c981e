"""Parameters whose rows are spread over processes by FSDP2 (`torch.distributed.fsdp.fully_shard`)."""

from typing import Any

from torch import Tensor


def is_sharded(parameter: Any) -> bool:
    """Return whether it is a DTensor."""
    return hasattr(parameter, "device_mesh")


def write_whole(parameter: Any, value: Tensor) -> None:
    """Copy `value`, whole and the same on all processes, into a parameter that may be sharded."""
    if is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor  # slow to import, and not in every torch

        # None: nothing is sent.
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(value)

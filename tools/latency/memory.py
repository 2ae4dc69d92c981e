"""The memory of a GPU that one of several rivals takes, all of which are in it at the same time."""

import torch

from tools.latency.clock import Call


def settled_bytes(device: torch.device) -> int | None:
    """Return the bytes of tensors on a GPU, or None for a CPU, whose memory torch does not count.

    The workspace of cuBLAS is among them: it belongs to all that follows, and the first of them would have it
    counted as its own.
    """
    if device.type != "cuda":
        return None
    square = torch.ones((16, 16), device=device)
    torch.mm(square, square)
    del square
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


def peak_mib(call: Call, others_bytes: int) -> float:
    """Return the most memory in use during a call on the current GPU in MiB, without `others_bytes`."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - others_bytes) / 2**20, 1)

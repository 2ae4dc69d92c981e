"""The last stretch of an image's way: from 8 bits in host memory to numbers for the network on its device."""

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

# ImageNet's, for every data set: inputs keep about the same scale, and there is one set of numbers to deploy.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class DeviceFeed:
    """Copies to a device, and what is computed of the copies, while the device works on what came before."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._begun: deque[torch.cuda.Event] = deque()

    def __call__(self, bring: Callable[[], T]) -> T:
        """Return the tensors, in whatever containers, that `bring` makes of what is in pinned memory."""
        if self._stream is None:
            return bring()
        working = torch.cuda.current_stream(self._stream.device)
        # Two batches ahead at most: an evaluation, which waits for nothing, would fill the memory.
        self._begun.append(working.record_event())
        if len(self._begun) > 2:
            self._begun.popleft().synchronize()
        with torch.cuda.stream(self._stream):
            brought = bring()
        working.wait_stream(self._stream)
        for leaf in tree_leaves(brought):
            if isinstance(leaf, Tensor):
                leaf.record_stream(working)  # else their memory could be taken for the next copies too soon
        return brought


def normalize(images: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return uint8 images (N, 3, H, W) as float32, each channel of ImageNet with mean 0 and deviation 1."""
    mean, std = _per_channel(images.device)
    values = images.to(torch.float32, memory_format=memory_format)
    return values.mul_(1 / 255).sub_(mean).div_(std)


@cache  # a copy to a GPU that is not from pinned memory waits for it
def _per_channel(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(numbers, device=device).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    return mean, std

"""What training on images has in common, whatever is to be learned: how a global batch is cut and loaded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch

from engine.amp import Precision
from engine.data import ImageData
from engine.data.classes import Classes
from engine.data.coco import CocoData
from engine.data.device import DeviceFeed
from engine.data.loader import BatchLoader
from engine.data.sampler import train_batches, val_batches
from engine.processes.distributed import World


@dataclass
class ImageTask:
    """How a task reads `data`.

    One optimizer step takes `global_batch_size` images over all processes, each of which sees at most
    `device_batch_size` at a time. Which images a step takes does not depend on the number of processes.
    """

    data: ImageData | CocoData
    world: World
    precision: Precision
    global_batch_size: int
    device_batch_size: int

    @cached_property
    def feed(self) -> DeviceFeed:
        return DeviceFeed(self.world.device)

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.world.device, non_blocking=True)

    @property
    def classes(self) -> Classes:
        return self.data.classes

    @property
    def accumulation(self) -> int:
        return self._cut[1]

    @cached_property
    def _cut(self) -> tuple[int, int]:
        """Micro-batch size and accumulation; not needed, so not checked, for evaluation alone."""
        return derive_accumulation(self.global_batch_size, self.world.size, self.device_batch_size)

    def describe_cut(self) -> str:
        world = self.world
        return (
            f"{self.data.steps_per_epoch(self.global_batch_size)} steps per epoch, each of "
            f"{self.global_batch_size} images: {world.size} x {world.device.type} x {self.accumulation} "
            f"micro-batches x {self._cut[0]}"
        )

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Any]]:
        batches = train_batches(
            self.data.epoch_order(epoch),
            start_step=start_step,
            global_batch_size=self.global_batch_size,
            micro_batch_size=self._cut[0],
            rank=self.world.rank,
            world_size=self.world.size,
        )
        loader = self.data.train_loader(epoch, batches)
        micro_batches = iter(loader)
        while step := list(islice(micro_batches, self.accumulation)):
            yield step
            self.report_skipped(loader.skipped)

    def val_loader(self, batch_size: int) -> BatchLoader[Any]:
        return self.data.val_loader(
            val_batches(
                self.data.num_val, batch_size=batch_size, rank=self.world.rank, world_size=self.world.size
            )
        )

    def report_skipped(self, sentences: Iterable[str]) -> None:
        """Tell the user of broken images that were left out; for tasks that leave any out."""


def derive_accumulation(global_batch_size: int, world_size: int, device_batch_size: int) -> tuple[int, int]:
    """Return (micro_batch_size, accumulation_steps) so that a step sees global_batch_size images exactly.

    The micro-batch is the largest that is no larger than `device_batch_size` and divides a rank's share.
    Raises ValueError where the ranks cannot get equal shares, naming the nearest sizes that work.
    """
    for name, value in (
        ("global_batch_size", global_batch_size),
        ("world_size", world_size),
        ("device_batch_size", device_batch_size),
    ):
        if value < 1:
            raise ValueError(f"{name}: expected 1 or greater, got {value}")
    share, rest = divmod(global_batch_size, world_size)
    if rest:
        raise ValueError(_unequal_shares(global_batch_size, world_size))
    micro_batch_size = max(size for size in range(1, min(device_batch_size, share) + 1) if share % size == 0)
    return micro_batch_size, share // micro_batch_size


def _unequal_shares(global_batch_size: int, world_size: int) -> str:
    below = global_batch_size // world_size * world_size
    batches = [str(size) for size in (below, below + world_size) if size > 0]
    divisors = [size for size in range(1, global_batch_size + 1) if global_batch_size % size == 0]
    processes = [max(size for size in divisors if size < world_size)]
    processes += [size for size in divisors if size > world_size][:1]
    return (
        f"global_batch_size={global_batch_size} cannot be shared equally by {world_size} processes; "
        f"the nearest that work: global_batch_size {' or '.join(batches)}, "
        f"or world_size {' or '.join(map(str, processes))}"
    )

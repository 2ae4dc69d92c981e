"""What training on images has in common, whatever is to be learned: how a global batch is cut and loaded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.amp import Precision
from engine.data import ImageData
from engine.data.coco.data import CocoData
from engine.data.loader import BatchLoader
from engine.processes.distributed import World
from engine.tasks.batching import derive_accumulation, in_steps


@dataclass
class ImageTask:
    """How a task reads `data`.

    One optimizer step takes `global_batch_size` images over all processes, each of which sees at most
    `device_batch_size` at a time. `workers` is the number of loading processes per process.
    """

    data: ImageData | CocoData
    world: World
    precision: Precision
    global_batch_size: int
    device_batch_size: int
    workers: int

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step and process."""
        return self._cut[1]

    @cached_property
    def _cut(self) -> tuple[int, int]:
        """Micro-batch size and accumulation; not needed, so not checked, for evaluation alone."""
        return derive_accumulation(self.global_batch_size, self.world.size, self.device_batch_size)

    def describe_cut(self) -> str:
        """Return, in a line, how a global batch is cut."""
        world = self.world
        return (
            f"{self.data.steps_per_epoch(self.global_batch_size)} steps per epoch, each of "
            f"{self.global_batch_size} images: {world.size} x {world.device.type} x {self.accumulation} "
            f"micro-batches x {self._cut[0]}"
        )

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Any]]:
        """Yield this process's micro-batches of each step of an epoch, from its step `start_step` on."""
        loader = self.data.train_loader(
            epoch=epoch,
            start_step=start_step,
            global_batch_size=self.global_batch_size,
            micro_batch_size=self._cut[0],
            rank=self.world.rank,
            world_size=self.world.size,
            workers=self.workers,
        )
        for step in in_steps(loader, self.accumulation):
            yield step
            self.report_skipped(loader.skipped)

    def val_loader(self, batch_size: int) -> BatchLoader[Any]:
        """Return this process's share of the validation images."""
        return self.data.val_loader(
            batch_size=batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            workers=self.workers,
        )

    def report_skipped(self, sentences: Iterable[str]) -> None:
        """Tell the user of broken images that were left out; for tasks that leave any out."""

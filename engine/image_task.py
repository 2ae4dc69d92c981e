"""What training on images has in common, whatever is to be learned: how a global batch is cut and loaded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from engine.amp import Precision
from engine.batching import derive_accumulation, in_steps
from engine.distributed import World


class Loader(Protocol):
    """A process's batches; `skipped` holds a sentence for each broken image left out so far."""

    skipped: list[str]

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""


class Images(Protocol):
    """Images to train on and to evaluate on: see engine.data.ImageData."""

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Return the optimizer steps of one epoch."""

    def train_loader(
        self,
        *,
        epoch: int,
        start_step: int,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        workers: int,
    ) -> Loader:
        """Return a process's micro-batches of an epoch, from a step on."""

    def val_loader(self, *, batch_size: int, rank: int, world_size: int, workers: int) -> Loader:
        """Return a process's share of the validation images."""


@dataclass
class ImageTask:
    """How a task reads `data`.

    One optimizer step takes `global_batch_size` images over all processes, each of which sees at most
    `device_batch_size` at a time. `workers` is the number of loading processes per process.
    """

    data: Any  # an Images; each task says which
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
            f"{self._images.steps_per_epoch(self.global_batch_size)} steps per epoch, each of "
            f"{self.global_batch_size} images: {world.size} x {world.device.type} x {self.accumulation} "
            f"micro-batches x {self._cut[0]}"
        )

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Any]]:
        """Yield this process's micro-batches of each step of an epoch, from its step `start_step` on."""
        loader = self._images.train_loader(
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

    def val_loader(self, batch_size: int) -> Loader:
        """Return this process's share of the validation images."""
        return self._images.val_loader(
            batch_size=batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            workers=self.workers,
        )

    def report_skipped(self, sentences: Iterable[str]) -> None:
        """Tell the user of broken images that were left out; for tasks that leave any out."""

    @property
    def _images(self) -> Images:
        images: Images = self.data
        return images

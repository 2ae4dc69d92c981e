"""Image classification as a task for the training loop: its batches, its loss, its evaluation."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import torch
import torch.nn.functional as F
from torch import nn

from engine.amp import Precision
from engine.batching import derive_accumulation
from engine.data import ImageData
from engine.distributed import World
from engine.evaluate import Batch, evaluate_classifier


@dataclass
class Classification:
    """What the loop needs to know about training a classifier on `data`.

    One optimizer step takes `global_batch_size` images over all processes, each of which sees at most
    `device_batch_size` at a time. `workers` is the number of loading processes per process.
    """

    data: ImageData
    world: World
    precision: Precision
    global_batch_size: int
    device_batch_size: int
    workers: int
    label_smoothing: float
    main_metric: str = "top1"
    _skipped: set[str] = field(default_factory=set)

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step and process."""
        return self._cut[1]

    @cached_property
    def _cut(self) -> tuple[int, int]:
        """Micro-batch size and accumulation; not needed, so not checked, for evaluation alone."""
        return derive_accumulation(self.global_batch_size, self.world.size, self.device_batch_size)

    def facts(self) -> dict[str, int]:
        """Return what must not change about the data when a run is resumed."""
        data = self.data
        return {"num_train": data.num_train, "num_val": data.num_val, "num_classes": data.num_classes}

    def describe(self) -> str:
        """Return, in two lines, the images and how a global batch is cut."""
        data, world = self.data, self.world
        steps = data.steps_per_epoch(self.global_batch_size)
        return (
            f"{data.num_train} training and {data.num_val} validation images in {data.num_classes} classes\n"
            f"{steps} steps per epoch, each of {self.global_batch_size} images: {world.size} x "
            f"{world.device.type} x {self.accumulation} micro-batches x {self._cut[0]}"
        )

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
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
        micro_batches = iter(loader)
        while step := list(islice(micro_batches, self.accumulation)):
            yield step
            self._report_skipped(loader.skipped)

    def loss(self, model: nn.Module, micro_batch: Batch) -> torch.Tensor:
        """Return the mean cross entropy over one micro-batch, computed in float32."""
        images, labels = (part.to(self.world.device, non_blocking=True) for part in micro_batch)
        with self.precision.autocast():
            logits = model(images)
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Evaluate on the validation images; None if any process was asked to stop."""
        loader = self.data.val_loader(
            batch_size=self.device_batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            workers=self.workers,
        )
        metrics = evaluate_classifier(
            model, loader, world=self.world, precision=self.precision, should_stop=should_stop
        )
        self._report_skipped(loader.skipped)
        return metrics

    def _report_skipped(self, sentences: list[str]) -> None:
        """Name each broken image once, whichever process met it."""
        for sentence in sorted(set(sentences) - self._skipped):
            self._skipped.add(sentence)
            print(f"skipped broken image {len(self._skipped)}: {sentence}", file=sys.stderr, flush=True)

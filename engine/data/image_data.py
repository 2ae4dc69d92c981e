"""A classifier's images with their transforms, and the loaders of training and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from engine.data.classes import Classes
from engine.data.loader import (
    BatchLoader,
    ImageBatch,
    ImageSample,
    LoadingProcesses,
    Samples,
    TrainSamples,
    ValSamples,
    image_batch,
)
from engine.data.source import DataError, ImageSource, Once
from engine.data.transforms import Transform


@dataclass(frozen=True)
class ImageData:
    """Training and validation images. A sample is the same to the bit on whichever rank it is read.

    Labels of both are those of `classes`. The training images are opened when they are asked for: evaluation
    needs none.
    """

    train_split: Once[tuple[ImageSource, Classes]]  # with classes of its own
    val: ImageSource
    classes: Classes
    train_transform: Transform
    eval_transform: Transform
    skip_broken: bool
    workers: int  # loading processes per training process
    seed: int

    @property
    def train(self) -> ImageSource:
        """The training split. Raises DataError where its files do not fit."""
        return self.train_split.value[0]

    @property
    def num_train(self) -> int:
        return len(self.train)

    @property
    def num_val(self) -> int:
        return len(self.val)

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Return num_train // global_batch_size. Raises DataError where that is 0."""
        if global_batch_size > self.num_train:
            raise DataError(
                f"global_batch_size={global_batch_size} exceeds the {self.num_train} training images: "
                f"not one step per epoch; set global_batch_size to {self.num_train} or less"
            )
        return self.num_train // global_batch_size

    def epoch_order(self, epoch: int) -> torch.Tensor:
        return self.train.epoch_order(self.seed, epoch)

    def train_loader(self, epoch: int, batches: Sequence[list[int]]) -> BatchLoader[ImageBatch]:
        """Return these batches of an epoch, augmented. A broken image gives way to the next readable one.

        Iterating raises BrokenImageError instead unless broken images are to be skipped.
        """
        self._processes.prepare(self._train_samples, self._val_samples)  # an evaluation follows
        return self._loader(self._train_samples, batches, epoch)

    def val_loader(self, batches: Sequence[list[int]]) -> BatchLoader[ImageBatch]:
        """Return these batches of validation images. A broken image is left out, or raises as in training."""
        return self._loader(self._val_samples, batches)

    def _loader(
        self, samples: Samples[ImageSample], batches: Sequence[list[int]], epoch: int = 0
    ) -> BatchLoader[ImageBatch]:
        return BatchLoader(self._processes, samples, batches, epoch=epoch, skip_broken=self.skip_broken)

    @cached_property
    def _processes(self) -> LoadingProcesses[ImageBatch]:
        return LoadingProcesses(image_batch, self.workers)

    @cached_property
    def _train_samples(self) -> TrainSamples:
        return TrainSamples(self.train, self.train_transform, self.seed, skip_broken=self.skip_broken)

    @cached_property
    def _val_samples(self) -> ValSamples:
        return ValSamples(self.val, self.eval_transform)

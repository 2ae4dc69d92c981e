"""Batches from a source: reading, augmentation and broken images, in this process or in loading processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from engine.data.sampler import isolated_rng, mix_seed
from engine.data.source import BrokenImageError, DataError, ImageSource
from engine.data.transforms import Transform
from engine.processes.preemption import obey_parent_only, stop_signals_blocked

Batch = TypeVar("Batch")
ImageBatch = tuple[torch.Tensor, torch.Tensor]


class Sample(NamedTuple):
    """One image ready for the network, or None for one left out, and what could not be decoded on the way.

    A broken image travels as text, so that BatchLoader, in the training process, can count it or raise an
    error without the traceback of a loading process.
    """

    image: torch.Tensor | None
    label: int
    broken: list[str]


class TrainSamples(Dataset[Sample]):
    """Augmented samples of one epoch; a sample depends on (seed, epoch, index) and on nothing else."""

    def __init__(self, source: ImageSource, transform: Transform, seed: int, epoch: int) -> None:
        self._source, self._transform, self._seed, self._epoch = source, transform, seed, epoch

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`, or if it is broken the next readable one; DataError if there is none."""
        broken: list[str] = []
        for offset in range(len(self._source)):
            number = (index + offset) % len(self._source)
            try:
                image = self._source.image(number)
            except BrokenImageError as error:
                broken.append(str(error))
                continue
            with isolated_rng(mix_seed(self._seed, self._epoch, index)):
                return Sample(self._transform(image), int(self._source.labels[number]), broken)
        raise DataError(f"none of the {len(self._source)} training images can be decoded; {broken[0]}")


class ValSamples(Dataset[Sample]):
    """Samples for evaluation; a broken one is left out of its batch and of the accuracy."""

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        self._source, self._transform = source, transform

    def __getitem__(self, index: int) -> Sample:
        label = int(self._source.labels[index])
        try:
            return Sample(self._transform(self._source.image(index)), label, [])
        except BrokenImageError as error:
            return Sample(None, label, [str(error)])


def collate_images(samples: list[Sample]) -> tuple[ImageBatch | None, list[str]]:
    """Return (images, labels) of the readable samples, None if there are none, and what could not be decoded.

    Images are float32 (batch, 3, size, size), labels int64 (batch,), both on the CPU.
    """
    broken = [sentence for sample in samples for sentence in sample.broken]
    readable = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    if not readable:
        return None, broken
    images = torch.stack([image for image, _ in readable])
    return (images, torch.tensor([label for _, label in readable], dtype=torch.int64)), broken


class BatchLoader(Generic[Batch]):
    """Iterates over the batches that `collate` makes of samples.

    Attributes:
        skipped: a sentence for each broken image left out of the batches so far, whichever process read it.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: Sequence[list[int]],
        *,
        collate: Callable[[list[Any]], tuple[Batch | None, list[str]]],
        workers: int,
        skip_broken: bool,
    ) -> None:
        """Read the samples that each of `batches` numbers, with `workers` processes (0: in this one).

        `collate` returns the batch of some samples, or None if none could be decoded, and a sentence for each
        broken image.
        """
        self.skipped: list[str] = []
        self._skip_broken = skip_broken
        self._batches = len(batches)
        self._loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=obey_parent_only,
            pin_memory=torch.cuda.is_available(),
            # Without a generator of its own a DataLoader draws from the global one.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Return the number of batches, with those of which every image is broken."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, without those of which no image is readable.

        Raises BrokenImageError, which names the image, unless broken ones are to be skipped.
        """
        with stop_signals_blocked():  # until the loading processes can deal with them
            batches = iter(self._loader)
        for batch, broken in batches:
            if broken and not self._skip_broken:
                raise BrokenImageError(broken[0])
            self.skipped += broken
            if batch is not None:
                yield batch

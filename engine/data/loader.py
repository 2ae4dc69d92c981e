"""Batches from a source: reading, augmentation and broken images, in this process or in loading processes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from engine.data.sampler import isolated_rng, mix_seed
from engine.data.source import BrokenImageError, DataError, ImageSource
from engine.data.transforms import Transform
from engine.errors import UserError
from engine.processes.preemption import obey_parent_only, stop_signals_blocked

T = TypeVar("T")
Batch = TypeVar("Batch")
ImageSample = tuple[torch.Tensor, int]  # image (3, size, size), label
ImageBatch = tuple[torch.Tensor, torch.Tensor]


class Read(NamedTuple, Generic[T]):
    """A sample, None for one left out, and a sentence for each image that could not be decoded on the way."""

    # Sentences, not exceptions: BatchLoader, in the training process, counts them or raises an error without
    # the traceback of a loading process.
    sample: T | None
    broken: list[str]


class TrainSamples(Dataset[Read[ImageSample]]):
    """Augmented samples of one epoch; a sample depends on (seed, epoch, index) and on nothing else."""

    def __init__(self, source: ImageSource, transform: Transform, seed: int, epoch: int) -> None:
        self._source, self._transform, self._seed, self._epoch = source, transform, seed, epoch

    def __getitem__(self, index: int) -> Read[ImageSample]:
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
                return Read((self._transform(image), int(self._source.labels[number])), broken)
        raise DataError(f"none of the {len(self._source)} training images can be decoded; {broken[0]}")


class ValSamples(Dataset[Read[ImageSample]]):
    """Samples for evaluation; a broken one is left out of its batch and of the accuracy."""

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        self._source, self._transform = source, transform

    def __getitem__(self, index: int) -> Read[ImageSample]:
        try:
            image = self._transform(self._source.image(index))
        except BrokenImageError as error:
            return Read(None, [str(error)])
        return Read((image, int(self._source.labels[index])), [])


def image_batch(samples: list[ImageSample]) -> ImageBatch:
    """Return images float32 (batch, 3, size, size) and labels int64 (batch,), both on the CPU."""
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels, dtype=torch.int64)


class _Safe(Dataset[Read[T] | Exception]):
    """Samples, or in the place of one the error that the user can mend."""

    # A DataLoader raises an error of a loading process anew, with that process's traceback for a message.
    def __init__(self, samples: Dataset[Read[T]]) -> None:
        self._samples = samples

    def __getitem__(self, index: int) -> Read[T] | Exception:
        try:
            return self._samples[index]
        except (UserError, OSError) as error:
            return error


class BatchLoader(Generic[Batch]):
    """Iterates over the batches that `collate` makes of the readable samples of a data set.

    Attributes:
        skipped: a sentence for each broken image left out of the batches so far, whichever process read it.
    """

    def __init__(
        self,
        dataset: Dataset[Read[T]],
        batches: Sequence[list[int]],
        *,
        collate: Callable[[list[T]], Batch],
        workers: int,
        skip_broken: bool,
    ) -> None:
        """Read the samples that each of `batches` numbers, with `workers` processes (0: in this one)."""
        self.skipped: list[str] = []
        self._skip_broken = skip_broken
        self._batches = len(batches)
        self._loader = DataLoader(
            _Safe(dataset),
            batch_sampler=batches,
            collate_fn=partial(_collate, collate),
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

        Raises BrokenImageError, which names the image, unless broken ones are to be skipped, and what reading
        raises for the user: DataError, or OSError for a file that cannot be read.
        """
        with stop_signals_blocked():  # until the loading processes can deal with them
            batches = iter(self._loader)
        for batch, broken in batches:
            if isinstance(batch, Exception):
                raise batch
            if broken and not self._skip_broken:
                raise BrokenImageError(broken[0])
            self.skipped += broken
            if batch is not None:
                yield batch


def _collate(
    collate: Callable[[list[T]], Batch], samples: list[Read[T] | Exception]
) -> tuple[Batch | Exception | None, list[str]]:
    reads = []
    for read in samples:
        if isinstance(read, Exception):
            return read, []
        reads.append(read)
    broken = [sentence for read in reads for sentence in read.broken]
    readable = [read.sample for read in reads if read.sample is not None]
    return collate(readable) if readable else None, broken

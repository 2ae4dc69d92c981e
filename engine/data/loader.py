"""Batches from a source: reading, augmentation and broken images, in this process or in loading processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from engine.data.sampler import isolated_rng, mix_seed
from engine.data.source import BrokenImageError, DataError, ImageSource
from engine.data.transforms import Transform
from engine.errors import UserError
from engine.processes.preemption import obey_parent_only, stop_signals_blocked

T = TypeVar("T")
Batch = TypeVar("Batch")
ImageSample = tuple[torch.Tensor, int]  # image uint8 (3, size, size), label
ImageBatch = tuple[torch.Tensor, torch.Tensor]
_Answer = tuple[Batch | None, list[str]] | UserError | OSError


class Read(NamedTuple, Generic[T]):
    """A sample, None for one left out, and a sentence for each image that could not be decoded on the way."""

    # Sentences, not exceptions: BatchLoader, in the training process, counts them or raises an error without
    # the traceback of a loading process.
    sample: T | None
    broken: list[str]


class Samples(Protocol[T]):
    """A split as samples; a sample depends on (epoch, index) and on nothing else that changes."""

    def read(self, epoch: int, index: int) -> Read[T]:
        """Return sample `index` of an epoch. Raises DataError, and OSError for a file that cannot be read."""


class TrainSamples:
    """Augmented samples; one depends on (seed, epoch, index) and on nothing else."""

    def __init__(self, source: ImageSource, transform: Transform, seed: int, *, skip_broken: bool) -> None:
        self._source, self._transform, self._seed = source, transform, seed
        self._skip_broken = skip_broken

    def read(self, epoch: int, index: int) -> Read[ImageSample]:
        """Return sample `index`. If it is broken: none, or to skip it the next readable one.

        Raises DataError if there is no readable one.
        """
        broken: list[str] = []
        for offset in range(len(self._source)):
            number = (index + offset) % len(self._source)
            try:
                with isolated_rng(mix_seed(self._seed, epoch, index)):
                    image = self._transform(self._source.image(number))
            except BrokenImageError as error:
                broken.append(str(error))
                if not self._skip_broken:
                    return Read(None, broken)
                continue
            return Read((image, int(self._source.labels[number])), broken)
        raise DataError(f"none of the {len(self._source)} training images can be decoded; {broken[0]}")


class ValSamples:
    """Samples for evaluation, the same in every epoch; a broken one is left out of batch and accuracy."""

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        self._source, self._transform = source, transform

    def read(self, epoch: int, index: int) -> Read[ImageSample]:
        try:
            image = self._transform(self._source.image(index))
        except BrokenImageError as error:
            return Read(None, [str(error)])
        return Read((image, int(self._source.labels[index])), [])


def image_batch(samples: list[ImageSample]) -> ImageBatch:
    """Return images uint8 (batch, 3, size, size) and labels int64 (batch,), both on the CPU."""
    images, labels = zip(*samples, strict=True)
    # In the order in which they are stored, channels last, copying is fastest.
    stacked = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return stacked, torch.tensor(labels, dtype=torch.int64)


class LoadingProcesses(Generic[Batch]):
    """Processes that read batches for one BatchLoader after another, in training and in evaluation.

    They start with the first batch and end with this object: starting takes seconds where they do not fork.
    Training and evaluation share them, so that none holds memory for batches that nobody waits for.
    """

    def __init__(self, collate: Callable[[list[Any]], Batch], workers: int) -> None:
        """Make batches by `collate` in `workers` processes (0: in this one)."""
        self._collate, self._workers = collate, workers
        self._samples: list[Samples[Any]] = []
        self._requests = _Requests()
        self._loader: DataLoader[_Answer[Batch]] | None = None
        self._reads = 0

    def prepare(self, *samples: Samples[Any]) -> None:
        """Get ready to read `samples`; processes that do not know them yet are replaced."""
        new = [one for one in samples if one not in self._samples]
        if new:
            self._samples += new
            self._loader = None

    def read(
        self, samples: Samples[Any], epoch: int, batches: Sequence[list[int]]
    ) -> Iterator[tuple[Batch | None, list[str]]]:
        """Yield each batch, None if every image in it is broken, and a sentence for each broken image.

        Ends an earlier reading. Raises what `samples` raise.
        """
        self.prepare(samples)
        self._reads += 1
        own_read, place = self._reads, self._samples.index(samples)
        self._requests.pending = (_Request(place, epoch, batch) for batch in batches)
        if self._loader is None:
            self._loader = self._new_loader()
        with stop_signals_blocked():  # until the loading processes can deal with them
            answers = iter(self._loader)
        for answer in answers:
            if isinstance(answer, Exception):
                try:
                    raise answer
                finally:
                    del answer  # a name in the error's own traceback would keep the processes
            yield answer
            if self._reads != own_read:
                raise RuntimeError("another loader of the same data was read from before this one's end")

    def _new_loader(self) -> "DataLoader[_Answer[Batch]]":
        return DataLoader(
            _Reader(tuple(self._samples), self._collate),
            batch_size=None,  # a request is a batch
            sampler=self._requests,
            collate_fn=_unchanged,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            worker_init_fn=obey_parent_only,
            pin_memory=torch.cuda.is_available(),
            # Without a generator of its own a DataLoader draws from the global one.
            generator=torch.Generator(),
        )


class BatchLoader(Generic[Batch]):
    """Iterates over batches of the readable samples of a split.

    Attributes:
        skipped: a sentence for each broken image left out of the batches so far, whichever process read it.
    """

    def __init__(
        self,
        processes: LoadingProcesses[Batch],
        samples: Samples[Any],
        batches: Sequence[list[int]],
        *,
        epoch: int = 0,
        skip_broken: bool,
    ) -> None:
        """Let `processes` read the samples that each of `batches` numbers."""
        self.skipped: list[str] = []
        self._processes, self._samples, self._epoch = processes, samples, epoch
        self._batches = batches
        self._skip_broken = skip_broken

    def __len__(self) -> int:
        """Return the number of batches, with those of which every image is broken."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, without those of which no image is readable.

        Raises BrokenImageError, which names the image, unless broken ones are to be skipped, and what reading
        raises for the user: DataError, or OSError for a file that cannot be read.
        """
        for batch, broken in self._processes.read(self._samples, self._epoch, self._batches):
            if broken and not self._skip_broken:
                raise BrokenImageError(broken[0])
            self.skipped += broken
            if batch is not None:
                yield batch


class _Request(NamedTuple):
    """A batch to be read: of which samples, in which epoch, and their numbers."""

    samples: int
    epoch: int
    numbers: list[int]


class _Requests:
    """What a DataLoader asks for: another sequence each time it is iterated over."""

    pending: Iterator[_Request]

    def __iter__(self) -> Iterator[_Request]:
        return self.pending


class _Reader(Dataset[_Answer[Batch]]):
    """What a loading process holds."""

    def __init__(self, samples: Sequence[Samples[Any]], collate: Callable[[list[Any]], Batch]) -> None:
        self._samples, self._collate = samples, collate

    def __getitem__(self, request: _Request) -> _Answer[Batch]:
        samples = self._samples[request.samples]
        try:
            reads = [samples.read(request.epoch, number) for number in request.numbers]
        except (UserError, OSError) as error:
            # A DataLoader raises an error of a loading process anew, with its traceback for a message.
            return error
        broken = [sentence for read in reads for sentence in read.broken]
        readable = [read.sample for read in reads if read.sample is not None]
        return self._collate(readable) if readable else None, broken


def _unchanged(answer: Any) -> Any:
    return answer

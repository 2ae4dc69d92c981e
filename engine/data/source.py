"""What every kind of data set offers: numbered images with labels, and an order for each epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from engine.data.picture import Picture, resized, size_of, with_shorter_side
from engine.errors import UserError

T = TypeVar("T")
Labels = npt.NDArray[np.int64]

# Beside names with a dot in front: what macOS, Synology, QNAP, Windows and Linux put among a user's files.
_SYSTEM_FOLDERS = {
    "__MACOSX",
    "@eaDir",
    "@Recently-Snapshot",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "Network Trash Folder",
    "System Volume Information",
    "lost+found",
}


class DataError(UserError, ValueError):
    """Images on disk that the user has to change; the message says which, and what was expected."""

    on_every_process = False


class BrokenImageError(DataError):
    """An image whose bytes could be read but not turned into RGB without loss; the message names it."""


@dataclass
class Once(Generic[T]):
    """What `open` returns, opened at the first use; like `open`, it can be pickled."""

    open: Callable[[], T]

    @cached_property
    def value(self) -> T:
        return self.open()


class ImageSource(Protocol):
    """A split of a data set. Samples are numbered 0 .. len - 1, in an order that never changes."""

    labels: Labels  # shape (len,)

    def __len__(self) -> int:
        """Return the number of samples."""

    def image(self, index: int) -> Picture:
        """Return one decoded image. Raises BrokenImageError."""

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return a permutation of the sample numbers, int64 of shape (len,), that depends on nothing else."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name (no path) is no data, as `._x.jpg` and `@eaDir`."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


class SelectedImages:
    """`count` images of a source, evenly spread: of each class its share, where they are sorted by class."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source = source
        self._numbers = np.arange(count) * len(source) // count
        self.labels = source.labels[self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def image(self, index: int) -> Picture:
        return self._source.image(int(self._numbers[index]))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        # The source's order without the images left out: neighbours in a shard stay neighbours.
        places = torch.full((len(self._source),), -1)
        places[torch.from_numpy(self._numbers)] = torch.arange(len(self))
        ordered = places[self._source.epoch_order(seed, epoch)]
        return ordered[ordered >= 0]


class ShrunkImages:
    """A source whose images have a shorter side of at most `side_px`; the training process keeps them."""

    def __init__(self, source: ImageSource, side_px: int) -> None:
        self._source, self._side_px = source, side_px
        self._shrunk: dict[int, Picture] = {}
        self.labels = source.labels

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> Picture:
        """Return one image, which must not be changed in place. Raises BrokenImageError."""
        if index not in self._shrunk:
            image = self._source.image(index)
            size = size_of(image)
            larger = min(size) > self._side_px
            image = resized(image, with_shorter_side(size, self._side_px) if larger else size)
            if get_worker_info() is not None:
                return image  # loading processes would each come to hold the whole data set
            self._shrunk[index] = image
        return self._shrunk[index]

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return self._source.epoch_order(seed, epoch)

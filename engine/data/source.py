"""What every kind of data set offers: numbered images with labels, and an order for each epoch."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageMode, UnidentifiedImageError
from torch.utils.data import get_worker_info
from torchvision.transforms import v2

from engine.errors import UserError

T = TypeVar("T")
Labels = npt.NDArray[np.int64]

_EIGHT_BITS = ("|u1", "|b1")  # numpy's names for the values of a mode
_TIFF = (b"II*\0", b"MM\0*")
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

    def image(self, index: int) -> Image.Image:
        """Return one decoded image in mode RGB. Raises BrokenImageError."""

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return a permutation of the sample numbers, int64 of shape (len,), that depends on nothing else."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name (no path) is no data, as `._x.jpg` and `@eaDir`."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def decode_rgb(
    data: bytes, name: str, remedy: str = "repair or remove it, or set data.broken_images=skip"
) -> Image.Image:
    """Decode an image file's bytes to RGB, whatever its 8-bit mode (grey, palette, CMYK, with alpha).

    Raises BrokenImageError, which names the image: for bytes that are no whole image, with the `remedy`, and
    for values that do not fit 8 bits.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            if ImageMode.getmode(mode).typestr in _EIGHT_BITS:
                return image.convert("RGB")
    except MemoryError:
        raise
    # Pillow reports broken data as OSError, SyntaxError, struct.error ...: the bytes are in memory, so each
    # of them means broken data.
    except Exception as error:
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):  # names the buffer by its address
            reason = "no image format known"
            if data.startswith(_TIFF):
                reason = (
                    "a TIFF of a kind that Pillow does not read, such as floats in RGB; save it with 8 bits"
                )
        raise BrokenImageError(f"cannot decode the image {name}: {reason}; {remedy}") from error
    # Pillow would clip: everything over 255 would be white, floats from 0 to 1 black. Which range is meant
    # only the user knows.
    raise BrokenImageError(
        f"cannot use the image {name}: mode {mode} has values that do not fit 8 bits; scale them to 0 .. 255 "
        "and save it with 8 bits, all images of the data set by one factor (see docs/data.md)"
    )


class SelectedImages:
    """`count` images of a source, evenly spread: of each class its share, where they are sorted by class."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source = source
        self._numbers = np.arange(count) * len(source) // count
        self.labels = source.labels[self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def image(self, index: int) -> Image.Image:
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
        self._shrunk: dict[int, Image.Image] = {}
        self.labels = source.labels

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> Image.Image:
        """Return one image in RGB, which must not be changed in place. Raises BrokenImageError."""
        if index not in self._shrunk:
            image = self._source.image(index)
            if min(image.size) > self._side_px:
                image = v2.functional.resize(image, [self._side_px])
            if get_worker_info() is not None:
                return image  # loading processes would each come to hold the whole data set
            self._shrunk[index] = image
        return self._shrunk[index]

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        return self._source.epoch_order(seed, epoch)

"""What every kind of data set offers: numbered images with labels, and an order for each epoch."""

import io
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

Labels = npt.NDArray[np.int64]


class DataError(ValueError):
    """Images on disk that the user has to change; the message says which, and what was expected."""


class BrokenImageError(DataError):
    """An image whose bytes could be read but not decoded; the message names it."""


class ImageSource(Protocol):
    """A split of a data set. Samples are numbered 0 .. len - 1, in an order that never changes."""

    labels: Labels  # shape (len,)

    def __len__(self) -> int:
        """Return the number of samples."""

    def image(self, index: int) -> Image.Image:
        """Return one decoded image in mode RGB. Raises BrokenImageError."""

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return a permutation of the sample numbers, int64 of shape (len,), that depends on nothing else."""


def decode_rgb(
    data: bytes, name: str, remedy: str = "repair or remove it, or set data.broken_images=skip"
) -> Image.Image:
    """Decode an image file's bytes to RGB, whatever its mode (grey, palette, CMYK, with alpha).

    Raises BrokenImageError, which names the image and the `remedy`. Pillow reports broken data by many types
    of exception (OSError, SyntaxError, struct.error ...); as the bytes are in memory here, each means broken
    data.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's own sentence names the buffer by its address, different each time.
        reason = "no image format known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BrokenImageError(f"cannot decode the image {name}: {reason}; {remedy}") from error

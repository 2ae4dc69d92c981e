"""A photograph in RGB as its decoder gives it, and what cuts, resizes and mirrors every kind alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

# A scaled picture ends on a whole pixel: where it has few of them, its edge would move.
_SMALLEST_TO_SCALE_PX = 256


@dataclass(frozen=True)
class EncodedPicture:
    """A picture that is decoded when it is known which part of it is wanted, and how large.

    Attributes:
        decode: returns the whole picture, uint8 (3, height, width), of at least a height and a width, or at
            its own size where that is less. Raises BrokenImageError.
        whole: its own (height, width).
        place: where the part begins: (top, left).
        part: the part's (height, width); None for the whole.
    """

    decode: Callable[[int, int], torch.Tensor]
    whole: tuple[int, int]
    place: tuple[int, int] = (0, 0)
    part: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.part or self.whole

    def decoded(self, size: tuple[int, int]) -> torch.Tensor:
        """Return the part, of at least (height, width) = size or at its own size where that is less."""
        (whole_height, whole_width), (height, width) = self.whole, self.size
        least = self.whole
        if min(self.whole) >= _SMALLEST_TO_SCALE_PX:
            least = math.ceil(whole_height * size[0] / height), math.ceil(whole_width * size[1] / width)
        pixels = self.decode(*least)
        down, right = pixels.shape[1] / whole_height, pixels.shape[2] / whole_width
        top, left = self.place
        rows = slice(_nearest(top * down), _nearest((top + height) * down))
        return pixels[:, rows, _nearest(left * right) : _nearest((left + width) * right)]


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)  # round() would take 1.5 and 2.5 to the same place


# A tensor is uint8 (3, height, width) with the channels last in memory: ATen resizes that fastest.
Picture = Image.Image | torch.Tensor | EncodedPicture


def size_of(picture: Picture) -> tuple[int, int]:
    """Return (height, width)."""
    if isinstance(picture, EncodedPicture):
        return picture.size
    height, width = functional.get_size(picture)
    return height, width


def with_shorter_side(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Return (height, width) scaled so that the shorter is `side_px`, the longer rounded down."""
    shorter = min(size)
    height, width = (int(side_px * side / shorter) for side in size)
    return height, width


def cropped(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """Return a part that lies within the picture."""
    if isinstance(picture, EncodedPicture):
        place = (picture.place[0] + top, picture.place[1] + left)
        return replace(picture, place=place, part=(height, width))
    if isinstance(picture, torch.Tensor):
        return picture[:, top : top + height, left : left + width]
    return picture.crop((left, top, left + width, top + height))


def resized(picture: Picture, size: tuple[int, int]) -> torch.Tensor | Image.Image:
    """Return the picture at (height, width) = size: bilinear, antialiased where it shrinks."""
    if isinstance(picture, EncodedPicture):
        picture = picture.decoded(size)
    if size == size_of(picture):
        return picture
    if isinstance(picture, torch.Tensor):
        # Not torchvision's resize: whether that rounds to 8 bits between the two sides depends on the CPU.
        # A batch of one made of rows, as ATen sees from its strides that channels are last.
        batch = picture.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        return torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True)[0]
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def mirrored(picture: Picture) -> Picture:
    """Return the picture with left and right exchanged."""
    if isinstance(picture, EncodedPicture):
        picture = picture.decoded(picture.size)
    if isinstance(picture, torch.Tensor):
        return picture.flip(2)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def to_tensor(picture: Picture) -> torch.Tensor:
    """Return uint8 (3, height, width), channels last in memory."""
    if isinstance(picture, EncodedPicture):
        return picture.decoded(picture.size)
    if isinstance(picture, torch.Tensor):
        return picture
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def to_pillow(picture: Picture) -> Image.Image:
    """Return the picture as an image of Pillow."""
    if isinstance(picture, Image.Image):
        return picture
    return Image.fromarray(to_tensor(picture).permute(1, 2, 0).contiguous().numpy())

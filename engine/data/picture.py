"""A photograph in RGB as its decoder gives it, and what cuts, resizes and mirrors either kind alike."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

# A tensor is uint8 (3, height, width) with the channels last in memory: ATen resizes that fastest.
Picture = Image.Image | torch.Tensor


def size_of(picture: Picture) -> tuple[int, int]:
    """Return (height, width)."""
    height, width = functional.get_size(picture)
    return height, width


def with_shorter_side(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Return (height, width) scaled so that the shorter is `side_px`, the longer rounded down."""
    shorter = min(size)
    height, width = (int(side_px * side / shorter) for side in size)
    return height, width


def cropped(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """Return a part that lies within the picture."""
    if isinstance(picture, torch.Tensor):
        return picture[:, top : top + height, left : left + width]
    return picture.crop((left, top, left + width, top + height))


def resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the picture at (height, width) = size: bilinear, antialiased where it shrinks."""
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
    if isinstance(picture, torch.Tensor):
        return picture.flip(2)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def to_tensor(picture: Picture) -> torch.Tensor:
    """Return uint8 (3, height, width), channels last in memory."""
    if isinstance(picture, torch.Tensor):
        return picture
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def to_pillow(picture: Picture) -> Image.Image:
    """Return the picture as an image of Pillow."""
    if isinstance(picture, torch.Tensor):
        return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    return picture

"""From a picture to the part that the network sees: torchvision's transforms, put together.

All of them draw from torch's global generator, which engine.data.sampler.isolated_rng controls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torchvision.transforms import v2

from engine.data.picture import (
    Picture,
    cropped,
    mirrored,
    resized,
    size_of,
    to_pillow,
    to_tensor,
    with_shorter_side,
)

_STRIP_RATIO = 16

Transform = Callable[[Picture], torch.Tensor]
_Step = Callable[[Picture], Picture]


def eval_transform(image_size_px: int, eval_crop_ratio: float) -> Transform:
    """Return: shorter side to image_size_px / eval_crop_ratio, centre crop.

    The result maps a picture to uint8 of shape (3, image_size_px, image_size_px).
    """
    resize = partial(_shorter_side_to, side_px=round(image_size_px / eval_crop_ratio))
    crop = partial(_centre, size=(image_size_px, image_size_px))
    return _ToPixels((_middle_of_strip, resize, crop))


def _middle_of_strip(picture: Picture) -> Picture:
    """Return the middle of an image with one side over 16 times the other, the rest as it is.

    The crop after resizing sees a square at most, but the resized strip of 4000 x 1 px would take 1 GB.
    """
    size = size_of(picture)
    shorter, longer = sorted(size)
    kept = _STRIP_RATIO * shorter
    if longer <= kept:
        return picture
    kept += (longer - kept) % 2  # the centre stays where it is
    return _centre(picture, (min(size[0], kept), min(size[1], kept)))


def _centre(picture: Picture, size: tuple[int, int]) -> Picture:
    top, left = (round((have - keep) / 2) for have, keep in zip(size_of(picture), size, strict=True))
    return cropped(picture, top, left, *size)


def _shorter_side_to(picture: Picture, side_px: int) -> Picture:
    return resized(picture, with_shorter_side(size_of(picture), side_px))


def photo_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation of photographs: random resized crop and horizontal flip."""
    return _ToPixels(_crop_and_mirror(image_size_px))


def autoaugment_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation, then AutoAugment's policy for ImageNet (section 4.1)."""
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)
    return _ToPixels((*_crop_and_mirror(image_size_px), to_pillow, policy))


def digit_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation of handwritten digits: small rotations, shifts and changes of scale.

    A mirrored digit is no digit, and a random crop cuts the strokes that tell 3 from 8.
    """
    shake = v2.RandomAffine(
        degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
    )
    return _ToPixels((to_pillow, partial(resized, size=(image_size_px, image_size_px)), shake))


# What follows draws what v2's own classes draw and gives their samples to the bit, for a 40 px image in half
# of the time: they search for images in whatever they are called with.


def _crop_and_mirror(image_size_px: int) -> tuple[_Step, _Step]:
    return partial(_random_resized_crop, v2.RandomResizedCrop(image_size_px)), _random_mirror


def _random_resized_crop(crop: v2.RandomResizedCrop, picture: Picture) -> Picture:
    height, width = size_of(picture)
    place = crop.make_params([torch.empty(3, height, width, device="meta")])  # of which it takes the size
    return resized(cropped(picture, **place), crop.size)


def _random_mirror(picture: Picture) -> Picture:
    return mirrored(picture) if torch.rand(1).item() < 0.5 else picture


@dataclass(frozen=True)
class _ToPixels:
    """The steps on a picture, one after the other, then a tensor."""

    steps: tuple[_Step, ...]

    def __call__(self, picture: Picture) -> torch.Tensor:
        for step in self.steps:
            picture = step(picture)
        return to_tensor(picture)

"""From a decoded image to the part that the network sees: torchvision's transforms, put together.

All of them draw from torch's global generator, which engine.data.sampler.isolated_rng controls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

_STRIP_RATIO = 16

Transform = Callable[[Image.Image], torch.Tensor]
_Step = Callable[[Image.Image], Image.Image]


def eval_transform(image_size_px: int, eval_crop_ratio: float) -> Transform:
    """Return: shorter side to image_size_px / eval_crop_ratio, centre crop.

    The result maps an RGB image to uint8 of shape (3, image_size_px, image_size_px).
    """
    resize = partial(functional.resize, size=[round(image_size_px / eval_crop_ratio)])
    crop = partial(functional.center_crop, output_size=[image_size_px])
    return _ToPixels((_middle_of_strip, resize, crop))


def _middle_of_strip(image: Image.Image) -> Image.Image:
    """Return the middle of an image with one side over 16 times the other, the rest as it is.

    The crop after resizing sees a square at most, but the resized strip of 4000 x 1 px would take 1 GB.
    """
    shorter, longer = sorted(image.size)
    kept = _STRIP_RATIO * shorter
    if longer <= kept:
        return image
    kept += (longer - kept) % 2  # the centre stays where it is
    return functional.center_crop(image, [min(side, kept) for side in (image.height, image.width)])


def photo_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation of photographs: random resized crop and horizontal flip."""
    return _ToPixels(_crop_and_mirror(image_size_px))


def autoaugment_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation, then AutoAugment's policy for ImageNet (section 4.1)."""
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)
    return _ToPixels((*_crop_and_mirror(image_size_px), policy))


def digit_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation of handwritten digits: small rotations, shifts and changes of scale.

    A mirrored digit is no digit, and a random crop cuts the strokes that tell 3 from 8.
    """
    shake = v2.RandomAffine(
        degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
    )
    return _ToPixels((partial(functional.resize, size=[image_size_px, image_size_px]), shake))


# What follows draws what v2's own classes draw and gives their samples to the bit, for a 40 px image in half
# of the time: they search for images in whatever they are called with.


def _crop_and_mirror(image_size_px: int) -> tuple[_Step, _Step]:
    return partial(_random_resized_crop, v2.RandomResizedCrop(image_size_px)), _random_mirror


def _random_resized_crop(crop: v2.RandomResizedCrop, image: Image.Image) -> Image.Image:
    place = crop.make_params([image])
    left, top = place["left"], place["top"]
    part = image.crop((left, top, left + place["width"], top + place["height"]))
    return part.resize(crop.size, Image.Resampling.BILINEAR)


def _random_mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1).item() < 0.5 else image


@dataclass(frozen=True)
class _ToPixels:
    """The steps on an RGB image, one after the other, then a tensor."""

    steps: tuple[_Step, ...]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        for step in self.steps:
            image = step(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

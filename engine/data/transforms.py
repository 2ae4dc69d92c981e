"""From a decoded image to the network's input: torchvision's transforms, put together.

All of them draw from torch's global generator, which engine.data.sampler.isolated_rng controls.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# ImageNet's, for every data set: inputs keep about the same scale, and there is one set of numbers to deploy.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_STRIP_RATIO = 16

Transform = Callable[[Image.Image], torch.Tensor]


def eval_transform(image_size_px: int, eval_crop_ratio: float) -> Transform:
    """Return: shorter side to image_size_px / eval_crop_ratio, centre crop, normalisation.

    The result maps an RGB image to float32 of shape (3, image_size_px, image_size_px).
    """
    resized = round(image_size_px / eval_crop_ratio)
    return _to_input(_middle_of_strip, v2.Resize(resized), v2.CenterCrop(image_size_px))


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
    return _to_input(v2.RandomResizedCrop(image_size_px), v2.RandomHorizontalFlip())


def autoaugment_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation, then AutoAugment's policy for ImageNet (section 4.1)."""
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)
    return _to_input(v2.RandomResizedCrop(image_size_px), v2.RandomHorizontalFlip(), policy)


def digit_transform(image_size_px: int) -> Transform:
    """Return the standard augmentation of handwritten digits: small rotations, shifts and changes of scale.

    A mirrored digit is no digit, and a random crop cuts the strokes that tell 3 from 8.
    """
    shake = v2.RandomAffine(
        degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
    )
    return _to_input(v2.Resize((image_size_px, image_size_px)), shake)


def _to_input(*geometry: Callable[[Image.Image], Image.Image]) -> Transform:
    to_float = v2.ToDtype(torch.float32, scale=True)
    composed: Transform = v2.Compose([*geometry, v2.PILToTensor(), to_float, v2.Normalize(MEAN, STD)])
    return composed

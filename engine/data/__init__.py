"""Images for a classifier: `build_data` opens them. A new kind of data set is a line of `KINDS`.

Images for a detector: `engine.data.coco`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.data.digits import open_digits
from engine.data.image_data import ImageData
from engine.data.imagefolder import open_image_folder
from engine.data.options import ImageOptions
from engine.data.source import BrokenImageError, DataError, ImageSource, SelectedImages, ShrunkImages
from engine.data.transforms import (
    Transform,
    autoaugment_transform,
    digit_transform,
    eval_transform,
    photo_transform,
)
from engine.data.webdataset import open_shards
from pwlu.suggestion import expected_one_of

__all__ = ["KINDS", "BrokenImageError", "DataError", "ImageData", "ImageOptions", "build_data"]


class Kind(NamedTuple):
    """How to open a kind of data set: (train, val, class names) of a root; its standard augmentation."""

    open: Callable[[Path], tuple[ImageSource, ImageSource, list[str]]]
    standard_augmentation: Callable[[int], Transform] = photo_transform


KINDS = {
    "imagefolder": Kind(open_image_folder),
    "webdataset": Kind(open_shards),
    "digits": Kind(lambda root: open_digits(), digit_transform),
}


def build_data(options: ImageOptions, seed: int) -> ImageData:
    """Open a data set.

    Raises DataError where the files do not fit, ValueError for an unknown word.
    """
    if options.kind not in KINDS:
        raise ValueError(expected_one_of("data.kind", options.kind, KINDS))
    if options.broken_images not in ("error", "skip"):
        raise ValueError(expected_one_of("data.broken_images", options.broken_images, ("error", "skip")))
    kind = KINDS[options.kind]
    evaluation = eval_transform(options.image_size_px, options.eval_crop_ratio)
    training = {
        "standard": kind.standard_augmentation(options.image_size_px),
        "autoaugment": autoaugment_transform(options.image_size_px),
        "none": evaluation,
    }
    if options.augmentation not in training:
        raise ValueError(expected_one_of("data.augmentation", options.augmentation, training))
    train, val, class_names = kind.open(Path(options.root))
    return ImageData(
        train=_reduced(train, options.max_train_images, options.shrink_px),
        val=_reduced(val, options.max_val_images, options.shrink_px),
        class_names=class_names,
        train_transform=training[options.augmentation],
        eval_transform=evaluation,
        skip_broken=options.broken_images == "skip",
        workers=options.workers,
        seed=seed,
    )


def _reduced(source: ImageSource, max_images: int, shrink_px: int) -> ImageSource:
    if 0 < max_images < len(source):
        source = SelectedImages(source, max_images)
    return ShrunkImages(source, shrink_px) if shrink_px else source

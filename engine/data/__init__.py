"""Images for a classifier: `build_data` opens them. A new kind of data set is a line of `KINDS`.

Images for a detector: `engine.data.coco`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from engine.data.classes import Classes
from engine.data.decoding import require_decoder
from engine.data.digits import open_digits
from engine.data.image_data import ImageData
from engine.data.imagefolder import open_image_folder
from engine.data.options import ImageOptions
from engine.data.source import BrokenImageError, DataError, ImageSource, Once, SelectedImages, ShrunkImages
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
    """How to open a kind of data set: images and classes of "train" or "val"; its standard augmentation."""

    open: Callable[[Path, str, str], tuple[ImageSource, Classes]]
    standard_augmentation: Callable[[int], Transform] = photo_transform


KINDS = {
    "imagefolder": Kind(open_image_folder),
    "webdataset": Kind(open_shards),
    "digits": Kind(lambda root, split, decoder: open_digits(split), digit_transform),
}


def build_data(options: ImageOptions, seed: int, trained: Classes | None = None) -> ImageData:
    """Open a data set, to train on it or, with the classes of a `trained` network, to evaluate that.

    Labels are those of the trained network, or of the training images; those of validation images are matched
    by name. Training images are opened when they are asked for, if there is a trained network.
    Raises DataError where the files do not fit, ValueError for an unknown word.
    """
    if options.kind not in KINDS:
        raise ValueError(expected_one_of("data.kind", options.kind, KINDS))
    require_decoder(options.decoder)
    if options.broken_images not in ("error", "skip"):
        raise ValueError(expected_one_of("data.broken_images", options.broken_images, ("error", "skip")))
    evaluation = eval_transform(options.image_size_px, options.eval_crop_ratio)
    training = {
        "standard": KINDS[options.kind].standard_augmentation(options.image_size_px),
        "autoaugment": autoaugment_transform(options.image_size_px),
        "none": evaluation,
    }
    if options.augmentation not in training:
        raise ValueError(expected_one_of("data.augmentation", options.augmentation, training))
    train_split = Once(partial(_open, options, "train", trained))
    classes = trained or train_split.value[1]
    val, _ = _open(options, "val", classes)
    return ImageData(
        train_split=train_split,
        val=val,
        classes=classes,
        train_transform=training[options.augmentation],
        eval_transform=evaluation,
        skip_broken=options.broken_images == "skip",
        workers=options.workers,
        seed=seed,
    )


def _open(options: ImageOptions, split: str, known: Classes | None) -> tuple[ImageSource, Classes]:
    """Return the images of a split and its own classes; where some are `known`, labels are of those."""
    source, own = KINDS[options.kind].open(Path(options.root), split, options.decoder)
    if known is not None:
        source.labels = known.labels_of(own, source.labels)[source.labels]
    (known or own).warn_of_missing(source.labels, f"{options.root}: {split}")
    max_images = options.max_train_images if split == "train" else options.max_val_images
    if 0 < max_images < len(source):
        source = SelectedImages(source, max_images)
    return ShrunkImages(source, options.shrink_px) if options.shrink_px else source, own

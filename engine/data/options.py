"""The options of both kinds of data, which are also the section `data` of the two configurations."""

from dataclasses import dataclass
from typing import Literal

from engine.bounds import NonNegativeInt, PositiveInt, UpToOne
from engine.paths import WrittenPath


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images a classifier sees, and how they are cut and changed."""

    kind: str = "imagefolder"  # a name of engine.data.KINDS: see docs/data.md
    root: WrittenPath = WrittenPath(
        "data/imagenet"
    )  # holds train/ and val/, or train-*.tar and val-*.tar; unused by digits
    workers: NonNegativeInt = 8  # loading processes per training process; 0 loads in the training process
    max_train_images: NonNegativeInt = 0  # use at most this many, evenly spread; 0 takes all
    max_val_images: NonNegativeInt = 0  # the same for the images of evaluation
    decoder: Literal["simplejpeg", "pillow"] = (
        "simplejpeg"  # of JPEG files; what resizes follows: docs/data.md
    )
    shrink_px: NonNegativeInt = 0  # bring larger images to this shorter side once, in memory; 0: do not
    image_size_px: PositiveInt = 224  # side of the square the network sees
    # standard: random resized crop + flip; none: as in evaluation
    augmentation: Literal["standard", "autoaugment", "none"] = "standard"
    # evaluation resizes the shorter side to image_size_px / ratio, then crops
    eval_crop_ratio: UpToOne = 0.875
    broken_images: Literal["error", "skip"] = "error"  # stop and name the file, or leave it out and count it


@dataclass(frozen=True, kw_only=True)
class CocoOptions:
    """Which images a detector sees, and at what size."""

    kind: Literal["coco", "digits"] = "coco"  # COCO's format, or digits pasted on canvases
    # holds annotations/instances_<split>.json and <split>/; digits are written there
    root: WrittenPath = WrittenPath("data/coco")
    train_split: str = "train2017"  # the images to train on
    val_split: str = "val2017"  # the images to evaluate on
    workers: NonNegativeInt = 4  # loading processes per training process; 0 loads in the training process
    decoder: Literal["simplejpeg", "pillow"] = (
        "simplejpeg"  # of JPEG files; what resizes follows: docs/data.md
    )
    shorter_side_px: PositiveInt = 800  # the image's shorter side is scaled to this ...
    longer_side_px: PositiveInt = 1333  # ... unless that makes the longer side exceed this
    empty_images: Literal["drop", "keep"] = "drop"  # training images without an object

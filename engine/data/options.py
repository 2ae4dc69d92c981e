"""The options of both kinds of data, which are also the section `data` of the two configurations."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images a classifier sees, and how they are cut and changed."""

    kind: str = "imagefolder"  # imagefolder | webdataset | digits
    root: str = "data/imagenet"  # holds train/ and val/, or train-*.tar and val-*.tar; unused by digits
    workers: int = 8  # loading processes per training process; 0 loads in the training process
    max_train_images: int = 0  # of more, so many are taken, evenly spread over the split; 0 takes all
    max_val_images: int = 0  # the same of the images to evaluate on
    shrink_px: int = 0  # larger images are first brought to this shorter side, and kept in memory; 0: neither
    image_size_px: int = 224  # side of the square the network sees
    augmentation: str = "standard"  # standard (random resized crop + flip) | autoaugment | none
    eval_crop_ratio: float = 0.875  # evaluation resizes the shorter side to image_size_px / ratio, then crops
    broken_images: str = "error"  # error: stop and name the file; skip: leave it out and count it


@dataclass(frozen=True, kw_only=True)
class CocoOptions:
    """Which images a detector sees, and at what size."""

    kind: str = "coco"  # coco | digits
    # Holds annotations/instances_<split>.json and <split>/; digits are written there.
    root: str = "data/coco"
    train_split: str = "train2017"
    val_split: str = "val2017"
    workers: int = 4  # loading processes per training process; 0 loads in the training process
    shorter_side_px: int = 800  # the image's shorter side is scaled to this ...
    longer_side_px: int = 1333  # ... unless that makes the longer side exceed this
    empty_images: str = "drop"  # training images without an object: drop | keep

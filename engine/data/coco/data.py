"""Images with boxes and masks for training and evaluation: `build_coco_data` opens them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.data.coco.annotation_file import read_annotation_file
from engine.data.coco.annotations import CocoAnnotations
from engine.data.coco.dataset import CocoImages, DetectionSamples
from engine.data.coco.entries import Integers
from engine.data.coco.grouping import grouped_length, grouped_order
from engine.data.coco.loader import DetectionBatch, collate_detection
from engine.data.coco.transforms import RandomMirror, ResizeRule
from engine.data.image_data import check_choice
from engine.data.loader import BatchLoader
from engine.data.sampler import train_batches, val_batches
from engine.data.source import DataError


@dataclass(frozen=True)
class CocoData:
    """Training and validation images. Samples are the same to the bit on any number of ranks.

    The training images are opened when they are asked for: evaluation needs none.
    """

    open_train: Callable[[], CocoImages]
    val: CocoImages
    empty_images: str
    resize: ResizeRule
    mirror_probability: float
    with_masks: bool
    seed: int

    @cached_property
    def train(self) -> CocoImages:
        """The training split. Raises DataError where its files do not fit."""
        train = self.open_train()
        _require_same_categories(train.annotations, self.val.annotations)
        return train

    @cached_property
    def trained_on(self) -> Integers:
        """The places in `train` of the images that are trained on, int64 (num_train,). Raises DataError."""
        return _trained_on(self.train.annotations, self.empty_images)

    @property
    def num_train(self) -> int:
        """Number of images to train on."""
        return len(self.trained_on)

    @property
    def num_val(self) -> int:
        """Number of images to evaluate on."""
        return len(self.val)

    @property
    def category_ids(self) -> list[int]:
        """COCO's id of each class, rising."""
        return self.val.annotations.category_ids

    @property
    def category_names(self) -> list[str]:
        """Name of each class."""
        return self.val.annotations.category_names

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The validation split's annotation file as loaded; read on first use, since only one rank scores."""
        return read_annotation_file(self.val.annotations.path)

    def val_image(self, image_id: int) -> Image.Image:
        """Return one validation image in RGB at its original size. Raises BrokenImageError, KeyError."""
        places = np.flatnonzero(self.val.annotations.image_ids == image_id)
        if not len(places):
            raise KeyError(image_id)
        return self.val.picture(int(places[0]))

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Return how often an epoch's pairs fill a batch. Raises DataError where they never do."""
        paired = grouped_length(self.num_train)
        if global_batch_size > paired:
            raise DataError(
                f"global_batch_size={global_batch_size} exceeds the {paired} images in pairs of the "
                f"{self.num_train} training images: not one step per epoch; set global_batch_size to "
                f"{paired} or less, or use more images"
            )
        return paired // global_batch_size

    def train_loader(
        self,
        *,
        epoch: int,
        start_step: int,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        workers: int,
    ) -> BatchLoader[DetectionBatch]:
        """Return this rank's micro-batches of the epoch, from optimizer step `start_step` on.

        Every step consumes global_batch_size distinct images over all ranks, the same ones whatever the
        number of ranks and workers. The two images of a pair are of one orientation (see grouped_order).
        Iterating raises BrokenImageError, with file and id, for an image that cannot be decoded.
        """
        self.steps_per_epoch(global_batch_size)
        order = grouped_order(self._aspect_ratios, self.seed, epoch)
        batches = train_batches(
            torch.from_numpy(self.trained_on)[order],
            start_step=start_step,
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
        )
        mirror = RandomMirror(self.mirror_probability, self.seed, epoch)
        samples = DetectionSamples(self.train, self.resize, with_masks=self.with_masks, mirrored=mirror)
        return BatchLoader(samples, batches, collate=collate_detection, workers=workers, skip_broken=False)

    def val_loader(
        self, *, batch_size: int, rank: int, world_size: int, workers: int
    ) -> BatchLoader[DetectionBatch]:
        """Return this rank's share of the validation images: over all ranks every image exactly once.

        Images without objects are among them. Targets have no masks: `ground_truth` has them.
        """
        batches = val_batches(len(self.val), batch_size=batch_size, rank=rank, world_size=world_size)
        samples = DetectionSamples(self.val, self.resize)
        return BatchLoader(samples, batches, collate=collate_detection, workers=workers, skip_broken=False)

    @cached_property
    def _aspect_ratios(self) -> torch.Tensor:
        ratios = self.train.annotations.widths / self.train.annotations.heights
        return torch.from_numpy(ratios[self.trained_on])


def build_coco_data(
    *,
    kind: str,
    root: str | Path,
    train_split: str = "train2017",
    val_split: str = "val2017",
    shorter_side_px: int,
    longer_side_px: int,
    empty_images: str,
    with_masks: bool,
    seed: int,
) -> CocoData:
    """Open a data set in COCO's layout: root/annotations/instances_<split>.json and root/<split>/.

    Args:
        kind: coco, or digits: a small generated set, written to `root` unless it is there already, of which
            nothing is mirrored, as a mirrored digit is none.
        empty_images: drop (as usual) or keep training images that have no object, or nothing but crowds.
        with_masks: read, check and hand out masks as well.

    Raises DataError, with file and id, where the validation files do not fit (the training files are opened
    later, see CocoData), ValueError for other arguments.
    """
    check_choice("kind", kind, ("coco", "digits"))
    check_choice("empty_images", empty_images, ("drop", "keep"))
    resize = ResizeRule(shorter_side_px, longer_side_px)
    folder = Path(root) if kind == "coco" else _digits(Path(root))
    return CocoData(
        open_train=partial(_open_split, folder, train_split, with_masks=with_masks, scored=False),
        val=_open_split(folder, val_split, with_masks=with_masks, scored=True),
        empty_images=empty_images,
        resize=resize,
        mirror_probability=0.0 if kind == "digits" else 0.5,
        with_masks=with_masks,
        seed=seed,
    )


def _digits(root: Path) -> Path:
    # Imported here: scikit-learn takes a second to load.
    from engine.data.coco.digits import write_digits

    return write_digits(root)


def _open_split(root: Path, split: str, *, with_masks: bool, scored: bool) -> CocoImages:
    path = root / "annotations" / f"instances_{split}.json"
    return CocoImages(root / split, CocoAnnotations(path, with_masks=with_masks, scored=scored))


def _trained_on(annotations: CocoAnnotations, empty_images: str) -> Integers:
    if empty_images == "keep":
        return np.arange(len(annotations))
    trained_on = np.flatnonzero(annotations.has_objects)
    if not len(trained_on):
        raise DataError(f"{annotations.path}: no image has an object that is no crowd: nothing to train on")
    return trained_on


def _require_same_categories(train: CocoAnnotations, val: CocoAnnotations) -> None:
    pairs = [set(zip(split.category_ids, split.category_names, strict=True)) for split in (train, val)]
    differing = sorted(pairs[0] ^ pairs[1])
    if differing:
        identity, name = differing[0]
        owner = train if differing[0] in pairs[0] else val
        raise DataError(
            f"{owner.path}: category {identity} ({name}) is not in the other split's file; "
            f"both need the same ids and names"
        )

"""A detector's training and validation images, and the loaders of training and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data.classes import Classes
from engine.data.coco.annotations import CocoAnnotations, Integers, read_annotation_file
from engine.data.coco.dataset import CocoImages, DetectionBatch, DetectionSamples, detection_batch
from engine.data.coco.transforms import RandomMirror, ResizeRule
from engine.data.decoding import require_decoder
from engine.data.loader import BatchLoader, LoadingProcesses
from engine.data.options import CocoOptions
from engine.data.sampler import isolated_rng, mix_seed
from engine.data.source import DataError, Once
from pwlu.suggestion import expected_one_of

GROUP_SIZE = 2  # the recipe's images per GPU (section 4.2: 16 on 8 GPUs)


@dataclass(frozen=True)
class CocoData:
    """Training and validation images. A sample is the same to the bit on whichever rank it is read.

    Labels of both are those of `classes`. The training images are opened when they are asked for: evaluation
    needs none.
    """

    train_split: Once[CocoImages]
    val: CocoImages
    classes: Classes
    empty_images: str
    resize: ResizeRule
    mirror_probability: float
    with_masks: bool
    workers: int  # loading processes per training process
    seed: int

    @property
    def train(self) -> CocoImages:
        """The training split. Raises DataError where its files do not fit."""
        return self.train_split.value

    @cached_property
    def trained_on(self) -> Integers:
        """The places in `train` of the images that are trained on, int64 (num_train,). Raises DataError."""
        annotations = self.train.annotations
        if self.empty_images == "keep":
            return np.arange(len(annotations))
        trained_on = np.flatnonzero(annotations.has_objects)
        if not len(trained_on):
            raise DataError(f"{annotations.path}: no image has an object to train on: {annotations.targets}")
        return trained_on

    @property
    def num_train(self) -> int:
        return len(self.trained_on)

    @property
    def num_val(self) -> int:
        return len(self.val)

    @property
    def category_ids(self) -> list[int | None]:
        """The validation file's id of each class; None for a class that the file does not have."""
        return self.val.annotations.category_ids

    @property
    def category_names(self) -> tuple[str, ...]:
        return self.classes.names or self.val.annotations.classes.names or ()

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The validation split's annotation file as loaded; read on first use, since only one rank scores."""
        return read_annotation_file(self.val.annotations.path)

    def val_place(self, image_id: int) -> int:
        return int(np.flatnonzero(self.val.annotations.image_ids == image_id)[0])

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Return how often an epoch's pairs fill a batch. Raises DataError where they never do."""
        paired = _whole_groups(self.num_train)
        if global_batch_size > paired:
            raise DataError(
                f"global_batch_size={global_batch_size} exceeds the {paired} images in pairs of the "
                f"{self.num_train} training images: not one step per epoch; set global_batch_size to "
                f"{paired} or less, or use more images"
            )
        return paired // global_batch_size

    def epoch_order(self, epoch: int) -> torch.Tensor:
        """Return the order in which an epoch takes images of `train`, in pairs of one orientation, int64."""
        annotations, chosen = self.train.annotations, self.trained_on
        ratios = torch.from_numpy(annotations.widths[chosen] / annotations.heights[chosen])
        return torch.from_numpy(chosen)[grouped_order(ratios, self.seed, epoch)]

    def train_loader(self, epoch: int, batches: Sequence[list[int]]) -> BatchLoader[DetectionBatch]:
        """Return these batches of an epoch, some images mirrored.

        Iterating raises BrokenImageError, with file and id, for an image that cannot be decoded.
        """
        self._processes.prepare(self._train_samples, self._val_samples)  # an evaluation follows
        return BatchLoader(self._processes, self._train_samples, batches, epoch=epoch, skip_broken=False)

    def val_loader(self, batches: Sequence[list[int]]) -> BatchLoader[DetectionBatch]:
        return BatchLoader(self._processes, self._val_samples, batches, skip_broken=False)

    @cached_property
    def _processes(self) -> LoadingProcesses[DetectionBatch]:
        return LoadingProcesses(detection_batch, self.workers)

    @cached_property
    def _train_samples(self) -> DetectionSamples:
        mirror = RandomMirror(self.mirror_probability, self.seed)
        return DetectionSamples(self.train, self.resize, with_masks=self.with_masks, mirrored=mirror)

    @cached_property
    def _val_samples(self) -> DetectionSamples:
        return DetectionSamples(self.val, self.resize)


def build_coco_data(
    options: CocoOptions, *, with_masks: bool, seed: int, trained: Classes | None = None
) -> CocoData:
    """Open a data set in COCO's layout: root/annotations/instances_<split>.json and root/<split>/.

    Labels are those of a `trained` network, or of the training file's categories in the order of their ids;
    those of the validation file are matched by name. If there is a trained network, training images are
    opened when they are asked for. Raises DataError, with file and id, where the files do not fit, ValueError
    for an unknown word or impossible sides.
    """
    for name, value, known in (
        ("data.kind", options.kind, ("coco", "digits")),
        ("data.empty_images", options.empty_images, ("drop", "keep")),
    ):
        if value not in known:
            raise ValueError(expected_one_of(name, value, known))
    require_decoder(options.decoder)
    resize, root = ResizeRule(options.shorter_side_px, options.longer_side_px), Path(options.root)
    if options.kind == "digits":
        # Imported here: scikit-learn takes a second to load.
        from engine.data.coco.digits import write_digits

        root = write_digits(root)
    opened = partial(_open_split, root, decoder=options.decoder, with_masks=with_masks)
    train_split = Once(partial(opened, options.train_split, trained, scored=False))
    classes = trained or train_split.value.annotations.classes
    val = opened(options.val_split, classes, scored=True)
    listed = [label for label, identity in enumerate(val.annotations.category_ids) if identity is not None]
    classes.warn_of_missing(np.array(listed), str(val.annotations.path))
    return CocoData(
        train_split=train_split,
        val=val,
        classes=classes,
        empty_images=options.empty_images,
        resize=resize,
        mirror_probability=0.0 if options.kind == "digits" else 0.5,  # mirrored digits are no digits
        with_masks=with_masks,
        workers=options.workers,
        seed=seed,
    )


def grouped_order(aspect_ratios: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Return an epoch's random order of images by pairs, int64, each image at most once.

    A batch is padded to the largest height and width in it, so each two in a row, from an even place on, are
    both wider than high (width / height > 1) or both not. Of an odd number of images one, another in every
    epoch, is left out. The order depends on the arguments alone.
    """
    with isolated_rng(mix_seed(seed, epoch)):
        order = torch.randperm(len(aspect_ratios))
        wide = aspect_ratios[order] > 1
        kinds = [order[wide], order[~wide]]
        # One left over of either kind form a pair too: the only high image of a small set is trained on.
        whole = [kind[: _whole_groups(len(kind))] for kind in kinds]
        left_over = [kind[_whole_groups(len(kind)) :] for kind in kinds]
        groups = torch.cat([*whole, *left_over])[: _whole_groups(len(order))].view(-1, GROUP_SIZE)
        return groups[torch.randperm(len(groups))].flatten()


def _whole_groups(num_images: int) -> int:
    return num_images // GROUP_SIZE * GROUP_SIZE


def _open_split(
    root: Path, split: str, known: Classes | None, *, decoder: str, with_masks: bool, scored: bool
) -> CocoImages:
    path = root / "annotations" / f"instances_{split}.json"
    annotations = CocoAnnotations(path, with_masks=with_masks, scored=scored)
    if known is not None:
        annotations.relabel(known)
    return CocoImages(root / split, annotations, decoder)

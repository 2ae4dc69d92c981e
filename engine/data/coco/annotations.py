"""What is in a split's images: the checked, compact form of `annotations/instances_<split>.json`."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.data.coco.annotation_file import read_annotation_file
from engine.data.coco.entries import Entries, Floats, Integers
from engine.data.coco.masks import Segmentation, Segmentations


class Objects(NamedTuple):
    """The objects of one image, crowds left out, in pixels of the original picture.

    `boxes` float64 (n, 4): x1, y1, x2, y2, not yet clipped; `labels` int64 (n,); `segmentations`: n, or
    none at all if the file was opened without masks.
    """

    boxes: Floats
    labels: Integers
    segmentations: list[Segmentation]


class CocoAnnotations:
    """Images and objects of one split. Images are numbered in the file's order, classes by category id.

    `image_ids`, `heights`, `widths`, `has_objects` (whether there is anything but crowds) have shape (len,);
    `category_ids` and `category_names` have one entry per class.
    """

    def __init__(self, path: Path, *, with_masks: bool, scored: bool) -> None:
        """Read and check the file; `scored` asks as well for what COCO's evaluation needs.

        Raises DataError, with file and id, for whatever does not fit together.
        """
        content = read_annotation_file(path)
        images = Entries(path, "image", content["images"])
        annotations = Entries(path, "annotation", content["annotations"])
        self.path = path
        self._keep_images(images)
        labels = self._keep_categories(Entries(path, "category", content["categories"]), annotations)
        owners = images.places_of(annotations.integers("image_id"), "image_id", annotations)
        boxes, crowd = _boxes(annotations), annotations.integers("iscrowd", default=0) != 0
        if scored:
            _require_scorable(annotations)
        order = np.argsort(owners, kind="stable")
        self.has_objects = np.bincount(owners[~crowd], minlength=len(images)) > 0
        self._last = np.bincount(owners, minlength=len(images)).cumsum()
        self._boxes, self._labels, self._crowd = boxes[order], labels[order], crowd[order]
        self._segmentations = (
            Segmentations(annotations, self.heights[owners], self.widths[owners], order)
            if with_masks
            else None
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    @property
    def num_crowds(self) -> int:
        """Number of crowd annotations, which are never targets."""
        return int(self._crowd.sum())

    def file_name(self, index: int) -> str:
        """Return the name of one image's file, relative to the split's folder."""
        return os.fsdecode(self._file_names[index])

    def objects(self, index: int) -> Objects:
        """Return what is in one image."""
        first = int(self._last[index - 1]) if index else 0
        rows = first + np.flatnonzero(~self._crowd[first : self._last[index]])
        outlines = [self._segmentations[row] for row in rows.tolist()] if self._segmentations else []
        return Objects(self._boxes[rows], self._labels[rows], outlines)

    def _keep_images(self, images: Entries) -> None:
        self.image_ids = images.ids
        self.heights, self.widths = images.integers("height"), images.integers("width")
        for key, lengths in (("height", self.heights), ("width", self.widths)):
            images.require(lengths > 0, f"{key}: expected 1 or more pixels", key)
        # An array, not a list, for the reason given at Segmentations.
        self._file_names = np.array([os.fsencode(name) for name in images.texts("file_name")])

    def _keep_categories(self, categories: Entries, annotations: Entries) -> Integers:
        """Keep ids and names in the order of the ids; return each annotation's class, int64."""
        names = categories.texts("name")
        order = np.argsort(categories.ids)
        self.category_ids: list[int] = categories.ids[order].tolist()
        self.category_names = [names[place] for place in order.tolist()]
        places = categories.places_of(annotations.integers("category_id"), "category_id", annotations)
        return np.argsort(order)[places]


def _boxes(annotations: Entries) -> Floats:
    """Return x1, y1, x2, y2 of COCO's x, y, width, height. No width or height is allowed: COCO has two."""
    boxes = annotations.rows("bbox", 4)
    annotations.require(
        np.all(boxes[:, 2:] >= 0, axis=1), "bbox: expected x, y and a width and height of 0 or more", "bbox"
    )
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _require_scorable(annotations: Entries) -> None:
    """Ask for what pycocotools reads: of two boxes it takes the one matched with id 0 for not matched."""
    annotations.require(annotations.ids > 0, "expected an id of 1 or more, for COCO's evaluation", "id")
    annotations.integers("iscrowd")
    annotations.require_numbers("area")

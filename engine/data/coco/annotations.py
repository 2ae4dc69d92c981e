"""What is in a split's images: the checked, compact form of `annotations/instances_<split>.json`."""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.data.coco.entries import Entries, Floats, Integers
from engine.data.coco.masks import Segmentation, Segmentations
from engine.data.source import DataError

_RENEW = "copy or download the file again"


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
        self._read_images(images)
        labels = self._read_categories(Entries(path, "category", content["categories"]), annotations)
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
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """Return the name of one image's file, relative to the split's folder."""
        return os.fsdecode(self._file_names[index])

    def objects(self, index: int) -> Objects:
        """Return what is in one image."""
        first = int(self._last[index - 1]) if index else 0
        rows = first + np.flatnonzero(~self._crowd[first : self._last[index]])
        outlines = [self._segmentations[row] for row in rows.tolist()] if self._segmentations else []
        return Objects(self._boxes[rows], self._labels[rows], outlines)

    def _read_images(self, images: Entries) -> None:
        self.image_ids = images.ids
        self.heights, self.widths = images.integers("height"), images.integers("width")
        for key, lengths in (("height", self.heights), ("width", self.widths)):
            images.require(lengths > 0, f"{key}: expected 1 or more pixels", key)
        # An array, not a list, for the reason given at Segmentations.
        self._file_names = np.array([os.fsencode(name) for name in images.texts("file_name")])

    def _read_categories(self, categories: Entries, annotations: Entries) -> Integers:
        """Take ids and names in the order of the ids; return each annotation's class, int64."""
        names = categories.texts("name")
        order = np.argsort(categories.ids)
        self.category_ids: list[int] = categories.ids[order].tolist()
        self.category_names = [names[place] for place in order.tolist()]
        places = categories.places_of(annotations.integers("category_id"), "category_id", annotations)
        return np.argsort(order)[places]


def read_annotation_file(path: Path) -> dict[str, Any]:
    """Return the content of `annotations/instances_<split>.json` as loaded.

    Raises DataError where it is missing, cut off, or lacks one of the lists images, annotations, categories.
    """
    try:
        text = path.read_text(encoding="utf-8")
        with _collector_paused():
            content = json.loads(text)
    except FileNotFoundError:
        layout = "ROOT/annotations/instances_<split>.json and ROOT/<split>/*.jpg"
        raise DataError(f"{path}: there is no such file; expected COCO's layout {layout}") from None
    except (ValueError, RecursionError) as error:  # of JSON as of UTF-8
        raise DataError(f"{path}: not a whole JSON file: {error}; {_RENEW}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations, categories; {_RENEW}")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise DataError(
                f"{path}: there is no list {name!r}; an instances file has images, annotations, categories"
            )
    return content


@contextmanager
def _collector_paused() -> Iterator[None]:
    # Python would look for cycles, of which JSON has none: 9 of 22 s at train2017's size.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _boxes(annotations: Entries) -> Floats:
    """Return x1, y1, x2, y2 of COCO's x, y, width, height. COCO has two boxes without width."""
    boxes = annotations.rows("bbox", 4)
    annotations.require(
        np.all(boxes[:, 2:] >= 0, axis=1), "bbox: expected x, y and a width and height of 0 or more", "bbox"
    )
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _require_scorable(annotations: Entries) -> None:
    # pycocotools takes an object matched with id 0 for not matched.
    annotations.require(annotations.ids > 0, "expected an id of 1 or more, for COCO's evaluation", "id")
    annotations.integers("iscrowd")
    annotations.require_numbers("area")

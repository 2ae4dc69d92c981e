"""What is in a split's images: the checked, compact form of `annotations/instances_<split>.json`."""

import gc
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.data.classes import Classes, named
from engine.data.coco.entries import Entry, box, integer, known, number, read_entries, text
from engine.data.coco.masks import Segmentation, check_segmentation
from engine.data.source import DataError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

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
    `classes` are the file's categories; `category_ids` has the file's id of each class, None for one that the
    file lacks, which is possible after `relabel`.
    """

    # Arrays, not lists: loading processes share an array with the process that forked them. Lists they copy
    # page by page, as they count the objects' references.

    def __init__(self, path: Path, *, with_masks: bool, scored: bool) -> None:
        """Read and check the file; `scored` asks as well for what COCO's evaluation needs.

        Raises DataError, with file and id, for whatever does not fit together.
        """
        content = read_annotation_file(path)
        self.path = path
        self._read_images(content["images"])
        self._read_categories(content["categories"])
        self._read_annotations(content["annotations"], with_masks=with_masks, scored=scored)

    def _read_images(self, images: list[Any]) -> None:
        heights, widths, names = array("q"), array("q"), []

        def read(image: Entry) -> None:
            for key, lengths in (("height", heights), ("width", widths)):
                lengths.append(integer(image, key))
                if lengths[-1] < 1:
                    raise ValueError(f"{key}: expected 1 or more pixels, got {lengths[-1]}")
            names.append(os.fsencode(text(image, "file_name")))

        self.image_ids = np.array(read_entries(self.path, "image", images, read), dtype=np.int64)
        self.heights, self.widths = np.array(heights), np.array(widths)
        self._file_names = np.array(names)

    def _read_categories(self, categories: list[Any]) -> None:
        names: list[str] = []
        ids = read_entries(self.path, "category", categories, lambda entry: names.append(text(entry, "name")))
        ordered = sorted(zip(ids, names, strict=True))
        self.category_ids: list[int | None] = [identity for identity, _ in ordered]
        self.classes = named([name for _, name in ordered], str(self.path), sorted(ids))

    def _read_annotations(self, annotations: list[Any], *, with_masks: bool, scored: bool) -> None:
        image_places = {identity: place for place, identity in enumerate(self.image_ids.tolist())}
        labels_of = {identity: label for label, identity in enumerate(self.classes.ids or ())}
        owners, labels, crowd, boxes = array("q"), array("q"), array("b"), array("d")
        segmentations = bytearray()
        ends = array("q", [0])

        def read(annotation: Entry) -> None:
            owner = known(annotation, "image_id", image_places, "image")
            owners.append(owner)
            labels.append(known(annotation, "category_id", labels_of, "category"))
            boxes.extend(box(annotation))
            if scored:
                number(annotation, "area")
            crowd.append("iscrowd" in annotation and integer(annotation, "iscrowd") != 0)
            if with_masks:
                segmentation = annotation.get("segmentation")
                check_segmentation(segmentation, int(self.heights[owner]), int(self.widths[owner]))
                segmentations.extend(json.dumps(segmentation, separators=(",", ":")).encode())
                ends.append(len(segmentations))

        read_entries(self.path, "annotation", annotations, read)
        # The objects of an image are rows [last[i - 1], last[i]) of the order of the images.
        self._order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(self))
        self._last = counts.cumsum()
        self._boxes, self._labels = np.array(boxes).reshape(-1, 4), np.array(labels)
        self._crowd = np.array(crowd, dtype=bool)
        self.has_objects = np.bincount(np.array(owners)[~self._crowd], minlength=len(self)) > 0
        self._segmentations = np.frombuffer(bytes(segmentations), np.uint8) if with_masks else None
        self._ends = np.array(ends)

    def relabel(self, known: Classes) -> None:
        """Number the classes as `known` does. Raises DataError for an object of a class that it lacks."""
        labels = known.labels_of(self.classes, self._labels)
        ids = dict(zip(labels.tolist(), self.category_ids, strict=True))
        self.category_ids = [ids.get(label) for label in range(known.count)]
        self._labels = labels[self._labels]

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        return os.fsdecode(self._file_names[index])

    def objects(self, index: int) -> Objects:
        rows = self._order[self._last[index - 1] if index else 0 : self._last[index]]
        rows = rows[~self._crowd[rows]]
        found = [] if self._segmentations is None else [self._segmentation(row) for row in rows.tolist()]
        return Objects(self._boxes[rows], self._labels[rows], found)

    def _segmentation(self, row: int) -> Segmentation:
        assert self._segmentations is not None
        first, last = self._ends[row : row + 2].tolist()
        segmentation: Segmentation = json.loads(self._segmentations[first:last].tobytes())
        return segmentation


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

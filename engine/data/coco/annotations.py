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

from engine.data.classes import Classes, named
from engine.data.coco.entries import Entry, integer, new_id, read_entries, same_ids, text
from engine.data.coco.masks import Segmentation
from engine.data.coco.rows import Rows
from engine.data.coco.targets import Floats, Integers, Judgement
from engine.data.source import DataError

_RENEW = "copy or download the file again"
_WITHOUT_AREA = (
    "have no area: it is taken from the box, and in the scores of masks from the mask; scores by size depend "
    "on it"
)
_TO_IGNORE = (
    "have 'ignore', which COCO's evaluation does not know: they count as objects; an ignored region has "
    "iscrowd: 1"
)
_SAME_ID = "have the id of another one: each counts as an object of its own, unless you remove it"


class Objects(NamedTuple):
    """The objects of one image that can be learned, in pixels of the original picture.

    `boxes` float64 (n, 4): x1, y1, x2, y2, not yet clipped; `labels` int64 (n,); `segmentations`: n, or
    none at all if the file was opened without masks.
    """

    boxes: Floats
    labels: Integers
    segmentations: list[Segmentation]


class CocoAnnotations:
    """Images and objects of one split. Images are numbered in the file's order, classes by category id.

    `image_ids`, `heights`, `widths`, `has_objects` (whether there is anything to learn) have shape (len,);
    `classes` are the file's categories; `category_ids` has the file's id of each class, None for one that the
    file lacks, which is possible after `relabel`. `targets` says in a sentence how many annotations are none,
    and why; it is empty where all are.
    """

    # Arrays, not lists, for what rows.Rows says of lists.

    def __init__(self, path: Path, *, with_masks: bool, scored: bool) -> None:
        """Read and check the file; `scored` looks as well at what COCO's evaluation needs.

        Warns of what is unusual. Raises DataError, with file and id, for whatever does not fit together.
        """
        content = read_annotation_file(path)
        self.path = path
        self._read_images(content["images"])
        self._read_categories(content["categories"])
        self._read_annotations(content["annotations"], with_masks=with_masks, scored=scored)

    def _read_images(self, images: list[Any]) -> None:
        heights, widths, names = array("q"), array("q"), []
        ids: dict[int, None] = {}

        def read(image: Entry) -> None:
            new_id(image, ids)
            for key, lengths in (("height", heights), ("width", widths)):
                lengths.append(integer(image, key))
                if lengths[-1] < 1:
                    raise ValueError(f"{key}: expected 1 or more pixels, got {lengths[-1]}")
            names.append(os.fsencode(text(image, "file_name")))

        read_entries(self.path, "image", images, read)
        self.image_ids = np.array(list(ids), dtype=np.int64)
        self.heights, self.widths = np.array(heights), np.array(widths)
        self._file_names = np.array(names)

    def _read_categories(self, categories: list[Any]) -> None:
        names: list[str] = []
        ids: dict[int, None] = {}

        def read(category: Entry) -> None:
            new_id(category, ids)
            names.append(text(category, "name"))

        read_entries(self.path, "category", categories, read)
        ordered = sorted(zip(ids, names, strict=True))
        self.category_ids: list[int | None] = [identity for identity, _ in ordered]
        self.classes = named([name for _, name in ordered], str(self.path), sorted(ids))

    def _read_annotations(self, annotations: list[Any], *, with_masks: bool, scored: bool) -> None:
        rows = Rows(
            {identity: place for place, identity in enumerate(self.image_ids.tolist())},
            self.heights.tolist(),
            self.widths.tolist(),
            {identity: label for label, identity in enumerate(self.classes.ids or ())},
            with_masks=with_masks,
            scored=scored,
        )
        read_entries(self.path, "annotation", annotations, rows.read)
        owners = np.array(rows.owners)
        judgement = Judgement(
            self.path,
            annotations,
            np.array(rows.boxes).reshape(-1, 4),
            np.array(rows.starts).reshape(-1, 2),
            np.stack([self.widths, self.heights], axis=1)[owners],
            np.array(rows.crowd, dtype=bool),
            np.array(rows.without_mask, dtype=bool),
        )
        judgement.tell()
        for flags, sentence in (
            (rows.without_area, _WITHOUT_AREA),
            (rows.to_ignore, _TO_IGNORE),
            (same_ids(annotations), _SAME_ID),
        ):
            judgement.warn(np.array(flags, dtype=bool), sentence)
        self.targets = judgement.summary()
        # The objects of an image are rows [last[i - 1], last[i]) of the order of the images.
        self._order = np.argsort(owners, kind="stable")
        self._last = np.bincount(owners, minlength=len(self)).cumsum()
        self._boxes, self._labels = judgement.boxes, np.array(rows.labels)
        self._left_out = judgement.left_out
        self.has_objects = np.bincount(owners[~self._left_out], minlength=len(self)) > 0
        self._segmentations = np.frombuffer(bytes(rows.segmentations), np.uint8) if with_masks else None
        self._ends = np.array(rows.ends)

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
        rows = rows[~self._left_out[rows]]
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
        with _collector_paused():
            content = json.loads(path.read_bytes())  # UTF-8, or as Windows' programs write: UTF-16, a BOM
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

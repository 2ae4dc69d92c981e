"""The annotations of a file as columns, filled entry by entry."""

import json
import math
from array import array

from engine.data.coco.entries import Entry, box, has_area, integer, known
from engine.data.coco.masks import check_segmentation, with_area

_NOWHERE = (math.nan, math.nan)


class Rows:
    """One row per annotation; `places` are those of the images by id, `heights` and `widths` are in pixels.

    Attributes:
        owners: the place of the image.
        labels: the place of the category.
        boxes: x1, y1, x2, y2, so four numbers per row.
        starts: x, y of the first corner of an object's outline, NaN where there is none.
        segmentations, ends: the text of all segmentations, and where that of row i ends: ends[i + 1].
        crowd, without_mask, without_area, to_ignore: what is so of an annotation.
    """

    # Arrays, not lists: loading processes share an array with the process that forked them. Lists they copy
    # page by page, as they count the objects' references.

    def __init__(
        self,
        places: dict[int, int],
        heights: list[int],
        widths: list[int],
        labels_of: dict[int, int],
        *,
        with_masks: bool,
        scored: bool,
    ) -> None:
        self._places, self._labels_of = places, labels_of
        self._heights, self._widths = heights, widths
        self._with_masks, self._scored = with_masks, scored
        self.owners, self.labels = array("q"), array("q")
        self.boxes, self.starts = array("d"), array("d")
        self.crowd, self.without_mask, self.without_area = array("b"), array("b"), array("b")
        self.to_ignore = array("b")
        self.segmentations, self.ends = bytearray(), array("q", [0])

    def read(self, annotation: Entry) -> None:
        """Add an annotation. Raises ValueError for what does not fit together."""
        self.owners.append(known(annotation, "image_id", self._places, "image"))
        self.labels.append(known(annotation, "category_id", self._labels_of, "category"))
        self.boxes.extend(box(annotation))
        self.crowd.append(annotation.get("iscrowd") is not None and integer(annotation, "iscrowd") != 0)
        self.without_area.append(self._scored and not has_area(annotation))
        self.to_ignore.append(bool(annotation.get("ignore")) and not self.crowd[-1])
        self._read_segmentation(annotation)

    def _read_segmentation(self, annotation: Entry) -> None:
        segmentation = with_area(annotation.get("segmentation")) if self._with_masks else None
        self.without_mask.append(self._with_masks and segmentation is None)
        if segmentation is not None:
            owner = self.owners[-1]
            check_segmentation(segmentation, self._heights[owner], self._widths[owner])
            self.segmentations.extend(json.dumps(segmentation, separators=(",", ":")).encode())
        self.starts.extend(segmentation[0][:2] if isinstance(segmentation, list) else _NOWHERE)
        self.ends.append(len(self.segmentations))

"""Instance masks: COCO's segmentations, checked, and their pixels at any size.

A segmentation is a list of polygons [x1, y1, x2, y2, ...] in pixels, or a run-length encoding (RLE): numbers
of pixels, column by column, that are in turn outside and inside; as a list or as COCO's text of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pycocotools import mask as coco_mask

Segmentation = list[list[float]] | dict[str, Any]  # polygons or RLE, as in the file

# Far outside any picture. pycocotools walks along each edge pixel by pixel, whatever its length.
_FARTHEST_PX = 100_000
_LONGEST_NUMBER = 7  # characters of a run in an RLE's text: 35 bits


def with_area(segmentation: Any) -> Any:
    """Return a segmentation without its polygons of fewer than three corners; None if nothing is left."""
    if isinstance(segmentation, list):
        # An odd number of coordinates is a mistake, and stays for `check_segmentation` to refuse.
        segmentation = [
            polygon
            for polygon in segmentation
            if not isinstance(polygon, list) or len(polygon) >= 6 or len(polygon) % 2
        ]
    return segmentation or None


def check_segmentation(segmentation: object, height: int, width: int) -> None:
    """Raise ValueError for what pycocotools cannot read as a mask of a picture of this size."""
    if isinstance(segmentation, dict):
        _check_rle(segmentation, height, width)
        return
    if not isinstance(segmentation, list):
        raise ValueError(f"segmentation: expected a list of polygons or an RLE, got {segmentation!r:.60}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} numbers" if isinstance(polygon, list) else f"{polygon!r:.60}"
            raise ValueError(
                f"segmentation: a polygon has 6, 8, 10 ... numbers x1, y1, x2, y2, x3, y3 ..., got {got}"
            )
        try:
            # The sum finds NaN, which max may pass over.
            near = math.isfinite(sum(polygon)) and max(map(abs, polygon)) < _FARTHEST_PX
        except (TypeError, OverflowError):
            raise ValueError(f"segmentation: expected numbers only, got {polygon!r:.60}") from None
        if not near:
            far = next(value for value in polygon if not abs(value) < _FARTHEST_PX)
            raise ValueError(f"segmentation: expected coordinates in pixels, got {far}")


def _check_rle(rle: dict[str, Any], height: int, width: int) -> None:
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"segmentation: the RLE's size is {size!r:.60}, its image's height and width {[height, width]}"
        )
    runs = _runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError(f"segmentation: the RLE's counts are no numbers of pixels: {counts!r:.60}")
    if sum(runs) != height * width:
        raise ValueError(
            f"segmentation: the RLE's counts add up to {sum(runs)} pixels, its image has {height * width}"
        )


def _runs_of_text(text: str) -> list[int] | None:
    """Return the runs in COCO's text of an RLE, None for another text: pycocotools would read beyond its end.

    A character holds 5 bits of a number, lowest first, and a sixth that says that more follow; the highest
    bit of a number is its sign. From the fourth number on, each is the difference to the one before the last.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)  # character of each number
    if not len(last) or last[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        return None
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _LONGEST_NUMBER:
        return None
    first = last - lengths + 1
    shift = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    runs = np.add.reduceat((codes & 31) << shift, first) - ((codes[last] & 16) << (shift[last] + 1))
    for start in (1, 2):
        runs[start::2] = runs[start::2].cumsum()
    return [int(run) for run in runs.tolist()]


def rasterize(
    segmentations: Sequence[Segmentation],
    original_size: tuple[int, int],
    size: tuple[int, int],
    *,
    mirrored: bool = False,
) -> torch.Tensor:
    """Return masks, uint8 (n, height, width) of 0 and 1, of a picture resized from `original_size` to `size`.

    Sizes are (height, width). Polygons are scaled, then filled as pycocotools does; an RLE's pixels are those
    nearest. Then the masks are mirrored left to right, if at all.
    """
    masks = np.empty((len(segmentations), *size), dtype=np.uint8)
    scale = size[1] / original_size[1], size[0] / original_size[0]
    for mask, segmentation in zip(masks, segmentations, strict=True):
        if isinstance(segmentation, dict):
            pixels = coco_mask.decode(run_lengths(segmentation, *original_size))
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            filled = np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))
        else:
            scaled = [(np.reshape(polygon, (-1, 2)) * scale).ravel() for polygon in segmentation]
            filled = coco_mask.decode(run_lengths(scaled, *size))
        mask[:] = filled[:, ::-1] if mirrored else filled
    return torch.from_numpy(masks)


def encode_masks(masks: npt.NDArray[np.bool_ | np.uint8]) -> list[dict[str, Any]]:
    """Return {"size": [height, width], "counts": str}, ready for JSON, of masks (n, height, width)."""
    # One by one: 100 masks of 12 megapixels would be copied several times over. pycocotools counts down the
    # columns: it takes Fortran's order.
    encoded = [coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8)) for mask in masks]
    return [
        {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
        for rle in encoded
    ]


def run_lengths(
    segmentation: Segmentation | Sequence[npt.NDArray[np.float64]], height: int, width: int
) -> dict[str, Any]:
    """Return pycocotools' own RLE of polygons in a picture of this size, or of another RLE."""
    if not isinstance(segmentation, dict):
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], str):
        return segmentation
    compressed: dict[str, Any] = coco_mask.frPyObjects(segmentation, height, width)
    return compressed

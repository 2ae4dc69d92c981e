"""Instance masks: COCO's segmentations, checked and kept compactly, and their pixels at any size.

A segmentation is a list of polygons [x1, y1, x2, y2, ...] in pixels, or a run-length encoding (RLE): numbers
of pixels, column by column, that are in turn outside and inside; as a list or as COCO's text of it.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from engine.data.coco.entries import Entries, Floats, Integers

# Far outside any picture. pycocotools walks along each edge pixel by pixel, whatever its length.
_FARTHEST_PX = 100_000


class Segmentation(NamedTuple):
    """One object's outline: polygons, each float64 of shape (2 * corners,), or the one list of RLE's runs."""

    pieces: list[Floats]
    is_runs: bool


class Segmentations:
    """Every object's segmentation in four arrays.

    Loading processes share arrays with the one that forked them; lists they copy page by page, as they count
    the objects' references.
    """

    def __init__(self, annotations: Entries, heights: Integers, widths: Integers, order: Integers) -> None:
        """Keep those of `annotations`, in `order`; `heights`, `widths` are each annotation's image's.

        Raises DataError, with file and id, for a segmentation that is none.
        """
        numbers, piece_ends, last_piece, is_runs = array("d"), array("q", [0]), array("q", [0]), []
        for place in order.tolist():
            size = int(heights[place]), int(widths[place])
            segmentation = annotations.entries[place].get("segmentation")
            try:
                for piece in _pieces(segmentation, size):
                    numbers.fromlist(piece)
                    piece_ends.append(len(numbers))
            except (ValueError, TypeError, OverflowError) as error:
                reason = error if type(error) is ValueError else "expected numbers only"
                raise annotations.fault(place, f"segmentation: {reason}") from None
            last_piece.append(len(piece_ends) - 1)
            is_runs.append(isinstance(segmentation, dict))
        self._numbers = np.array(numbers, dtype=np.float64)
        self._piece_ends = np.array(piece_ends, dtype=np.int64)
        self._last_piece = np.array(last_piece, dtype=np.int64)
        self._is_runs = np.array(is_runs, dtype=bool)
        self._require_near(annotations, order)

    def __getitem__(self, index: int) -> Segmentation:
        """Return that of object `index`, counted in the order given."""
        first, last = self._last_piece[index : index + 2].tolist()
        ends = self._piece_ends[first : last + 1].tolist()
        pieces = [self._numbers[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        return Segmentation(pieces, bool(self._is_runs[index]))

    def _require_near(self, annotations: Entries, order: Integers) -> None:
        """Look for coordinates that are not finite or mean no place near a picture."""
        far = np.flatnonzero(~(np.abs(self._numbers) < _FARTHEST_PX))
        owners = np.searchsorted(self._piece_ends[self._last_piece[1:]], far, side="right")
        far, owners = far[~self._is_runs[owners]], owners[~self._is_runs[owners]]
        if len(far):
            sentence = f"segmentation: expected coordinates in pixels, got {self._numbers[far[0]]}"
            raise annotations.fault(int(order[owners[0]]), sentence)


def _pieces(segmentation: object, size: tuple[int, int]) -> list[list[float]]:
    """Return polygons, or [runs]. Raises ValueError that says what is wrong."""
    if isinstance(segmentation, dict):
        return [_runs(segmentation, size)]
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"expected a list of polygons or an RLE, got {segmentation!r:.60}")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} numbers" if isinstance(polygon, list) else f"{polygon!r:.60}"
            raise ValueError(f"a polygon has 6, 8, 10 ... numbers x1, y1, x2, y2, x3, y3 ..., got {got}")
    return segmentation


def _runs(rle: dict[str, object], size: tuple[int, int]) -> list[float]:
    height, width = size
    if rle.get("size") != [height, width]:
        raise ValueError(
            f"the RLE's size is {rle.get('size')!r:.60}, its image's height and width {[height, width]}"
        )
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list) or not all(isinstance(run, int) and run >= 0 for run in counts):
        raise ValueError(f"the RLE's counts are no numbers of pixels: {rle.get('counts')!r:.60}")
    if sum(counts) != height * width:
        raise ValueError(f"the RLE's counts add up to {sum(counts)} pixels, its image has {height * width}")
    return counts


def _decoded(text: str) -> list[int]:
    """Return the runs in COCO's text form of an RLE; pycocotools would read beyond the end of a damaged one.

    Each character holds 5 bits, lowest first, and a sixth that says "more follow"; a number's highest bit is
    its sign. From the fourth on, runs are given as differences to the one before the last.
    """
    runs: list[int] = []
    value = bits = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            raise ValueError(f"not an RLE's text: {text!r:.60}")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (code & 16) << (bits - 4)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = bits = 0
    if bits:
        raise ValueError(f"an RLE's text is cut off: {text[-20:]!r}")
    return runs


def rasterize(
    segmentations: Sequence[Segmentation], original_size: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Return masks, uint8 (n, height, width) of 0 and 1, of a picture resized from `original_size` to `size`.

    Sizes are (height, width). Polygons are scaled, then filled as pycocotools does; an RLE's pixels are those
    nearest.
    """
    masks = np.empty((len(segmentations), *size), dtype=np.uint8)
    for mask, outline in zip(masks, segmentations, strict=True):
        if outline.is_runs:
            mask[:] = _resized_runs(outline.pieces[0], original_size, size)
        else:
            mask[:] = _filled(outline.pieces, size[1] / original_size[1], size[0] / original_size[0], size)
    return torch.from_numpy(masks)


def _filled(
    polygons: list[Floats], x_scale: float, y_scale: float, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    scaled = [(polygon.reshape(-1, 2) * (x_scale, y_scale)).ravel() for polygon in polygons]
    whole = coco_mask.merge(coco_mask.frPyObjects(scaled, *size))
    filled: npt.NDArray[np.uint8] = coco_mask.decode(whole)
    return filled


def _resized_runs(
    runs: Floats, original_size: tuple[int, int], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    height, width = original_size
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    columns = np.repeat(inside, runs.astype(np.int64)).reshape(width, height)
    picture = Image.fromarray(np.ascontiguousarray(columns.T))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))

"""Binary masks as COCO's segmentations: polygons along the pixels' edges, or uncompressed run lengths."""

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Corner = tuple[int, int]  # x, y

# right, down, left, up, in a picture whose y grows downwards
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def segmentation(mask: Mask) -> list[list[int]] | dict[str, Any]:
    """Return polygons [[x, y, x, y, ...], ...] of a mask (height, width), or run lengths if it has a hole.

    COCO's polygons are added up and so cannot say that something is missing in the middle of another. Both
    forms give back the mask to the pixel.
    """
    loops = outlines(mask)
    if any(signed_area(loop) < 0 for loop in loops):
        return run_lengths(mask)
    return [[int(number) for corner in loop for number in corner] for loop in loops]


def run_lengths(mask: Mask) -> dict[str, Any]:
    """Return {"size": [height, width], "counts": [...]}: lengths of runs down the columns, of 0 first."""
    values = mask.flatten(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [len(values)]])).tolist()
    if values[0]:
        counts = [0, *counts]
    return {"size": list(mask.shape), "counts": counts}


def outlines(mask: Mask) -> list[list[Corner]]:
    """Return the closed lines around a mask, as corners in pixels with the object on the right hand.

    Lines around the object turn clockwise, those around its holes the other way. Pixels that only touch at
    a corner are apart.
    """
    leaving = _edges(mask)
    loops = []
    while leaving:
        loops.append(_walk(leaving, start=next(iter(leaving))))
    return loops


def signed_area(loop: list[Corner]) -> float:
    """Return the area inside a closed line in pixels, positive if it turns clockwise in the picture."""
    after = [*loop[1:], loop[0]]
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(loop, after, strict=True)) / 2


def _edges(mask: Mask) -> dict[Corner, list[int]]:
    """Return for each corner of pixels the directions in which an edge of the object leaves it."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # neighbour of each pixel, direction of the edge to it, corner of the pixel where that edge begins
    sides = (
        (padded[:-2, 1:-1], 0, (0, 0)),  # above
        (padded[1:-1, 2:], 1, (1, 0)),  # to the right
        (padded[2:, 1:-1], 2, (1, 1)),  # below
        (padded[1:-1, :-2], 3, (0, 1)),  # to the left
    )
    leaving: dict[Corner, list[int]] = {}
    for neighbour, direction, (dx, dy) in sides:
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            leaving.setdefault((x + dx, y + dy), []).append(direction)
    return leaving


def _walk(leaving: dict[Corner, list[int]], start: Corner) -> list[Corner]:
    """Take the edges of one closed line out of `leaving`; return its corners, those where it turns."""
    corner, before = start, None
    loop: list[Corner] = []
    while not loop or corner != start:
        choices = leaving[corner]
        # Where two pixels touch at a corner, a turn to the right stays with the same one.
        direction = choices[0] if before is None or len(choices) == 1 else (before + 1) % 4
        choices.remove(direction)
        if not choices:
            del leaving[corner]
        if direction != before:
            loop.append(corner)
        corner = (corner[0] + _DIRECTIONS[direction][0], corner[1] + _DIRECTIONS[direction][1])
        before = direction
    return loop

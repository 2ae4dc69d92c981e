"""Which annotations of a file are targets of training, and what their owner should know of the others."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.data.coco.entries import Entry
from engine.data.source import DataError
from engine.records.console import EXAMPLES, first_few, warn_on_main

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_FEW = 10  # annotations
_TOLERATED_PX = 1  # programs differ by a pixel in where a box ends
_UNLIKELY = 0.05  # of the annotations, to be so on purpose
_MANY_CROWDS = 0.25  # of the annotations; COCO has 0.012, CrowdHuman 0.18
_PIXELS = "COCO's bbox is x, y, width, height in pixels"


@dataclass(frozen=True)
class Judgement:
    """A file's annotations, row by row, and what becomes of them.

    `boxes` (n, 4) are corners x1, y1, x2, y2, `starts` (n, 2) a corner of the outline or NaN, `sizes` (n, 2)
    the width and height of each one's picture; all in pixels. `without_mask` is about networks that need
    masks.
    """

    path: Path
    entries: list[Entry]
    boxes: Floats
    starts: Floats
    sizes: Integers
    crowd: Flags
    without_mask: Flags

    @cached_property
    def flat(self) -> Flags:
        """Which objects have a box without width or height."""
        return ~self.crowd & (self.boxes[:, 2:] <= self.boxes[:, :2]).any(axis=1)

    @cached_property
    def outside(self) -> Flags:
        """Which objects have a box that no pixel of the picture is in."""
        beside = (self.boxes[:, 2:] <= 0) | (self.boxes[:, :2] >= self.sizes)
        return ~self.crowd & ~self.flat & beside.any(axis=1)

    @cached_property
    def clipped(self) -> Flags:
        """Which objects have a box that a border of the picture cuts."""
        return ~self.crowd & ~self.flat & ~self.outside & (self._beyond > _TOLERATED_PX)

    @cached_property
    def _beyond(self) -> Floats:
        """How far each box leaves its picture, in pixels."""
        beyond: Floats = np.maximum(-self.boxes[:, :2], self.boxes[:, 2:] - self.sizes).max(axis=1)
        return beyond

    @property
    def left_out(self) -> Flags:
        """Which annotations are no objects to learn; flat boxes go when they are scaled."""
        # An image with a flat box is one with an object, as detectron2 counts COCO's 117,266 images.
        return self.crowd | self.outside | self.without_mask

    def summary(self) -> str:
        """Return how many annotations are targets and why the others are not; nothing where all are."""
        kinds = {"crowds (iscrowd)": self.crowd}
        rest = ~self.crowd
        for name, flags in (
            ("without width or height", self.flat),
            ("outside of their picture", self.outside),
            ("without a segmentation", self.without_mask),
        ):
            kinds[name] = flags & rest
            rest = rest & ~flags
        reasons = [
            f"{flags.sum()} {name}" + ("" if flags is self.crowd else f" ({self._names(flags)})")
            for name, flags in kinds.items()
            if flags.any()
        ]
        if not reasons:
            return ""
        all_of_file = f"{len(rest)} annotations of {self.path.name}"
        return f"{rest.sum()} of the {all_of_file} are targets; no targets: {', '.join(reasons)}"

    def tell(self) -> None:
        """Warn of what is unusual. Raises DataError for boxes that are certainly meant otherwise."""
        self._refuse_fractions()
        self._tell_boxes()
        self._tell_outlines()
        if self.crowd.mean() > _MANY_CROWDS:
            self.warn(
                self.crowd,
                "are crowds (iscrowd: 1), no targets in training and ignored regions in scoring; some "
                "programs (CVAT) mark every mask so: set iscrowd to 0 where it is one object",
            )
        self.warn(
            self.without_mask & ~self.crowd,
            "have no segmentation: no targets in training, ignored regions in the scores of masks",
        )

    def warn(self, rows: Flags, sentence: str) -> None:
        """Print how many annotations, what of them, and the first few; nothing where there are none."""
        if rows.any():
            warn_on_main(
                f"{self.path}: {rows.sum()} of {len(rows)} annotations {sentence}: {self._names(rows)}"
            )

    def _refuse_fractions(self) -> None:
        tiny: Flags = ~self.crowd & ~self.flat & (self.boxes <= 2).all(axis=1)
        tiny &= (self.boxes % 1 > 0).any(axis=1)  # a whole pixel is no fraction
        if tiny.mean() > _UNLIKELY:
            raise DataError(
                f"{self.path}: {tiny.sum()} of {len(tiny)} boxes lie in the picture's first two pixels: are "
                f"they fractions of its sides? {_PIXELS}: {self._names(tiny)}"
            )

    def _tell_boxes(self) -> None:
        cause = "are the pictures turned by their EXIF orientation? Pixels are taken as stored"
        if self._fit_as_corners():
            cause = f"all of them would fit as corners x1, y1, x2, y2, but {_PIXELS}"
            leaving, objects = self.outside | self.clipped, ~self.crowd
            if leaving.sum() > max(objects.sum() / 2, _FEW):  # of a few boxes it may be chance
                raise DataError(
                    f"{self.path}: {leaving.sum()} of {objects.sum()} boxes leave their pictures; {cause}: "
                    f"{self._names(leaving)}"
                )
        self.warn(self.outside, f"have a box outside of their picture, so are no targets ({cause})")
        farthest = self._beyond[self.clipped].max(initial=0)
        self.warn(
            self.clipped,
            f"have a box that leaves the picture, by up to {farthest:.0f} px, and is clipped ({cause})",
        )

    def _tell_outlines(self) -> None:
        margin = 2 + 0.1 * (self.boxes[:, 2:] - self.boxes[:, :2])
        away = (self.starts < self.boxes[:, :2] - margin) | (self.starts > self.boxes[:, 2:] + margin)
        apart: Flags = away.any(axis=1) & ~self.outside & ~self.clipped
        if apart.mean() > _UNLIKELY:
            self.warn(
                apart,
                "have a segmentation that begins outside of the box (are both of the same picture?)",
            )

    def _fit_as_corners(self) -> bool:
        first, second = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        fit = (first >= -_TOLERATED_PX) & (second > first) & (second <= self.sizes + _TOLERATED_PX)
        return bool(fit[~self.crowd].all())

    def _names(self, rows: Flags) -> str:
        # One more than is shown tells that there are more; a name of each would be built for most of a file.
        some = [(row, self.entries[row]) for row in np.flatnonzero(rows)[: EXAMPLES + 1].tolist()]
        return first_few(
            [
                f"annotation {entry.get('id', f'number {row + 1} of the list')} of image {entry['image_id']}"
                for row, entry in some
            ]
        )

"""Samples of a split in COCO's layout, and batches of them, which are lists as images differ in size."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image

from engine.data.coco.annotations import CocoAnnotations
from engine.data.coco.files import find_pictures
from engine.data.coco.transforms import ResizeRule, Target, to_input, to_target
from engine.data.decoding import decode_rgb
from engine.data.loader import Read
from engine.data.picture import Picture, size_of
from engine.data.source import BrokenImageError

_REMEDY = "copy or download it again"
_TURNING = (5, 6, 7, 8)  # the EXIF orientations that exchange width and height


class CocoImages:
    """The pictures and annotations of one split."""

    def __init__(self, folder: Path, annotations: CocoAnnotations, decoder: str = "pillow") -> None:
        """Take the pictures in `folder`. Raises DataError where one is not there."""
        self._folder, self.annotations, self._decoder = folder, annotations, decoder
        # An array, for what rows.Rows says of lists.
        self._names = np.array([os.fsencode(name) for name in find_pictures(folder, annotations)])

    def __len__(self) -> int:
        return len(self.annotations)

    def size(self, index: int) -> tuple[int, int]:
        return int(self.annotations.heights[index]), int(self.annotations.widths[index])

    def picture(self, index: int) -> Picture:
        """Return one image, its pixels as stored: COCO's annotations know no EXIF orientation.

        Raises BrokenImageError, with file and id, if it cannot be read or its size is not as annotated.
        """
        path = self._folder / os.fsdecode(self._names[index])
        name = f"{path} (image {self.annotations.image_ids[index]} of {self.annotations.path.name})"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BrokenImageError(f"cannot read the image {name}: {error.strerror}; {_REMEDY}") from error
        picture = decode_rgb(data, name, self._decoder, remedy=_REMEDY)
        size, annotated = size_of(picture), self.size(index)
        if size != annotated:
            raise BrokenImageError(
                f"the image {name} is {size[1]} x {size[0]} pixels, but annotated as "
                f"{annotated[1]} x {annotated[0]}; {_cause(data, turned=size == annotated[::-1])}"
            )
        return picture


def _cause(data: bytes, *, turned: bool) -> str:
    """Return why a picture, turned or another, has not the size that was annotated, and what to do."""
    if not turned:
        return f"{_REMEDY}, as it is another image than the annotated one"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except SyntaxError:  # Pillow's word for EXIF data that are broken
        orientation = None
    if orientation in _TURNING:
        return (
            f"its EXIF orientation {orientation} turns it where it is shown, and so it was annotated, but "
            "pixels are taken as stored: turn all images of the data set (`mogrify -auto-orient *.jpg`)"
        )
    return (
        "its sides are exchanged: correct height and width in the annotation file, or turn the image back if "
        "it was turned after it was annotated"
    )


class DetectionSample(NamedTuple):
    """One image ready for the network; `original_size` is (height, width) before resizing."""

    image: torch.Tensor
    target: Target
    image_id: int
    original_size: tuple[int, int]


class DetectionSamples:
    """The samples of a split, resized; `mirrored` says which are mirrored in which epoch (default: none)."""

    def __init__(
        self,
        images: CocoImages,
        resize: ResizeRule,
        *,
        with_masks: bool = False,
        mirrored: Callable[[int, int], bool] | None = None,
    ) -> None:
        self._images, self._resize = images, resize
        self._with_masks, self._mirrored = with_masks, mirrored

    def read(self, epoch: int, index: int) -> Read[DetectionSample]:
        original_size = self._images.size(index)
        size = self._resize.size(*original_size)
        mirrored = self._mirrored is not None and self._mirrored(epoch, index)
        try:
            image = to_input(self._images.picture(index), size, mirrored)
        except BrokenImageError as error:
            return Read(None, [str(error)])
        objects = self._images.annotations.objects(index)
        target = to_target(objects, original_size, size, mirrored=mirrored, with_masks=self._with_masks)
        image_id = int(self._images.annotations.image_ids[index])
        return Read(DetectionSample(image, target, image_id, original_size), [])


class DetectionBatch(NamedTuple):
    """Images uint8 (3, h, w), RGB, each with its target, COCO id and original (height, width).

    A target has "boxes" float32 (n, 4), x1 y1 x2 y2 in pixels of its image, "labels" int64 (n,) from 0 and,
    in training data opened with masks, "masks" uint8 (n, h, w); n may be 0. All are on the CPU.
    """

    images: list[torch.Tensor]
    targets: list[Target]
    image_ids: list[int]
    original_sizes: list[tuple[int, int]]


def detection_batch(samples: list[DetectionSample]) -> DetectionBatch:
    """Return the samples as a batch."""
    return DetectionBatch(*map(list, zip(*samples, strict=True)))

"""Samples of a split in COCO's layout, and batches of them, which are lists as images differ in size."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from engine.data.coco.annotations import CocoAnnotations
from engine.data.coco.transforms import ResizeRule, Target, to_input, to_target
from engine.data.loader import Read
from engine.data.source import BrokenImageError, DataError, decode_rgb

_REMEDY = "copy or download it again"


class CocoImages:
    """The pictures and annotations of one split."""

    def __init__(self, folder: Path, annotations: CocoAnnotations) -> None:
        """Take the pictures in `folder`. Raises DataError where one is not there."""
        self._folder, self.annotations = folder, annotations
        self._require_files()

    def __len__(self) -> int:
        return len(self.annotations)

    def size(self, index: int) -> tuple[int, int]:
        return int(self.annotations.heights[index]), int(self.annotations.widths[index])

    def picture(self, index: int) -> Image.Image:
        """Return one image in RGB, its pixels as stored: COCO's annotations know no EXIF orientation.

        Raises BrokenImageError, with file and id, if it cannot be read or its size is not as annotated.
        """
        path = self._folder / self.annotations.file_name(index)
        name = f"{path} (image {self.annotations.image_ids[index]} of {self.annotations.path.name})"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BrokenImageError(f"cannot read the image {name}: {error.strerror}; {_REMEDY}") from error
        picture = decode_rgb(data, name, remedy=_REMEDY)
        height, width = self.size(index)
        if picture.size != (width, height):
            raise BrokenImageError(
                f"the image {name} is {picture.width} x {picture.height} pixels, but annotated as "
                f"{width} x {height}; {_REMEDY}, as it is another image than the annotated one"
            )
        return picture

    def _require_files(self) -> None:
        # Compare with the folders' lists: asking for 118,287 files one by one takes minutes on NFS.
        if not self._folder.is_dir():
            raise DataError(f"{self._folder} is not a folder; {self.annotations.path} is about its images")
        present: defaultdict[str, set[str]] = defaultdict(set)
        for index in range(len(self)):
            parent, name = os.path.split(self.annotations.file_name(index))
            if parent not in present and (self._folder / parent).is_dir():
                present[parent] = set(os.listdir(self._folder / parent))
            if name not in present[parent]:
                raise DataError(
                    f"{self.annotations.path}: image {self.annotations.image_ids[index]}: there is no file "
                    f"{self._folder / parent / name}; copy or download the images again"
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
        try:
            picture = self._images.picture(index)
        except BrokenImageError as error:
            return Read(None, [str(error)])
        original_size = self._images.size(index)
        size = self._resize.size(*original_size)
        mirrored = self._mirrored is not None and self._mirrored(epoch, index)
        objects = self._images.annotations.objects(index)
        target = to_target(objects, original_size, size, mirrored=mirrored, with_masks=self._with_masks)
        image_id = int(self._images.annotations.image_ids[index])
        return Read(DetectionSample(to_input(picture, size, mirrored), target, image_id, original_size), [])


class DetectionBatch(NamedTuple):
    """Images float32 (3, h, w), RGB in [0, 1], each with its target, COCO id and original (height, width).

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

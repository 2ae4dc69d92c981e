"""From a photograph and its objects to a detector's input: resized, perhaps mirrored, boxes and masks too."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.data.coco.annotations import Objects
from engine.data.coco.masks import rasterize
from engine.data.picture import Picture, mirrored, resized, to_tensor
from engine.data.sampler import mix_seed

Target = dict[str, torch.Tensor]

# detectron2's threshold. Asked of the float32 boxes it also makes sure of x1 < x2.
_SMALLEST_SIDE_PX = 1e-5


@dataclass(frozen=True)
class ResizeRule:
    """The shorter side becomes `shorter_side_px`, or less where the longer would exceed `longer_side_px`."""

    shorter_side_px: int
    longer_side_px: int

    def __post_init__(self) -> None:
        if not 1 <= self.shorter_side_px <= self.longer_side_px:
            raise ValueError(
                f"shorter_side_px, longer_side_px: expected 1 <= shorter <= longer, got "
                f"{self.shorter_side_px} and {self.longer_side_px}"
            )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) after resizing: both by one factor, rounded to the nearest, halves up."""
        shorter, longer = sorted((height, width))
        target, source = self.shorter_side_px, shorter
        if self.shorter_side_px * longer > self.longer_side_px * shorter:
            target, source = self.longer_side_px, longer
        # In whole numbers, so that the side that sets the factor comes out exactly.
        scaled = [max(1, (2 * side * target + source) // (2 * source)) for side in (height, width)]
        return scaled[0], scaled[1]


@dataclass(frozen=True)
class RandomMirror:
    """Which samples of an epoch are mirrored: depends on (seed, epoch, index) and on nothing else."""

    probability: float
    seed: int

    def __call__(self, epoch: int, index: int) -> bool:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch, index))
        return bool(torch.rand((), generator=generator) < self.probability)


def to_input(picture: Picture, size: tuple[int, int], mirror: bool) -> torch.Tensor:
    """Return a picture resized to (height, width), perhaps mirrored, uint8 (3, height, width)."""
    image = resized(picture, size)
    return to_tensor(mirrored(image) if mirror else image)


def to_target(
    objects: Objects,
    original_size: tuple[int, int],
    size: tuple[int, int],
    *,
    mirrored: bool,
    with_masks: bool,
) -> Target:
    """Return {"boxes": float32 (n, 4), "labels": int64 (n,)} and, with_masks, "masks": uint8 (n, h, w).

    Boxes are clipped to the picture; of what then has no width or no height (over 1e-5 px) nothing is kept.
    Polygons are filled after scaling. Sizes are (height, width).
    """
    height, width = size
    scale = np.tile([width / original_size[1], height / original_size[0]], 2)
    clipped = torch.from_numpy((objects.boxes * scale).clip(0, np.tile([width, height], 2)))
    boxes = (mirror_boxes(clipped, width) if mirrored else clipped).to(torch.float32)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > _SMALLEST_SIDE_PX).all(dim=1)
    target = {"boxes": boxes[kept], "labels": torch.from_numpy(objects.labels)[kept]}
    if with_masks:
        outlines = [objects.segmentations[number] for number in kept.nonzero().flatten().tolist()]
        target["masks"] = rasterize(outlines, original_size, size, mirrored=mirrored)
    return target


def mirror_boxes(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Return boxes (n, 4), x1 y1 x2 y2, as they are in the picture mirrored left to right."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)

"""Anchors where detectron2 has them, in torchvision's class."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class Anchors(AnchorGenerator):
    """torchvision's anchor generator with exact sizes, exact strides and float32 coordinates.

    Args:
        sides_px: per level the sides of the square anchors; the others have the same area.
        ratios: height / width.
        strides_px: per level the distance of neighbouring positions.
    """

    # torchvision's rounds boxes to whole pixels, guesses a level's stride from the padded image's size (wrong
    # above 32) and takes the features' dtype: under autocast coordinates above 256 are no longer exact.

    def __init__(
        self, sides_px: Sequence[Sequence[float]], ratios: Sequence[float], strides_px: Sequence[int]
    ) -> None:
        super().__init__(tuple(map(tuple, sides_px)), (tuple(ratios),) * len(sides_px))
        self.strides_px = tuple(strides_px)

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return a level's anchors around the origin, (number of ratios * scales, 4) as x1 y1 x2 y2."""
        device = device or torch.device("cpu")  # not meta, where a model may be built for its sizes alone
        sides = torch.tensor(scales, dtype=dtype, device=device)
        roots = torch.tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths = (sides / roots[:, None]).flatten()
        heights = (sides * roots[:, None]).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def forward(self, images: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return for each image the anchors of all levels, (sum of positions * anchors there, 4)."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(map(int, features.shape[-2:])) for features in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, [[stride, stride] for stride in self.strides_px]))
        return [anchors] * len(images.image_sizes)

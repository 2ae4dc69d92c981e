"""From a list of images to one batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from .detector import Target


class ImageBatch(nn.Module):
    """Normalises images and pads them to a common size: what torchvision calls a detector's transform.

    torchvision's own would also resize them. Padding is zero after the normalisation, at the right and the
    bottom, so that coordinates stay, to multiples of `size_divisible_px`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], size_divisible_px: int) -> None:
        super().__init__()
        self.size_divisible_px = size_divisible_px
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Return the images (3, h, w) as one (N, 3, H, W) with their sizes, and the targets as they are."""
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        height, width = (self._rounded_up(max(side)) for side in zip(*sizes, strict=True))
        padded = [
            F.pad((image - self.mean) / self.std, (0, width - w, 0, height - h))
            for image, (h, w) in zip(images, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes), targets

    def postprocess(self, detections: list[Target], *sizes: object) -> list[Target]:
        return detections

    def _rounded_up(self, length_px: int) -> int:
        return -(-length_px // self.size_divisible_px) * self.size_divisible_px

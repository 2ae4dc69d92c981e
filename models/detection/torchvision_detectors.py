"""torchvision's detectors behind the interface of both engines."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .detector import Detector
from .images import Target
from .masks import paste_masks
from .recipe import DetectorRecipe
from .sites import Probe, zero_region


class TorchvisionDetector(Detector):
    """A detector of torchvision behind the interface of both engines.

    Attributes:
        model: the network; its images come and its detections go unresized.
        first_label: the number that its first class has there.
    """

    first_label: int
    model: Any

    def __init__(self, model: nn.Module, recipe: DetectorRecipe) -> None:
        super().__init__()
        self.model = model
        self.mask_threshold = recipe.mask_threshold

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses; see `forward`."""
        shifted = [{**target, "labels": target["labels"] + self.first_label} for target in targets]
        losses: dict[str, Tensor] = self.model(images, shifted)
        return losses

    def detections(self, images: list[Tensor], original_sizes: list[tuple[int, int]]) -> list[Target]:
        """Return the detections; see `forward`."""
        return [
            self._in_original(found, image, size)
            for found, image, size in zip(self.model(images), images, original_sizes, strict=True)
        ]

    def _in_original(self, found: Target, image: Tensor, size: tuple[int, int]) -> Target:
        """Scale an image's detections from its size to the original's; drop boxes without an area there."""
        height, width = size
        scale_y, scale_x = height / image.shape[-2], width / image.shape[-1]
        boxes = found["boxes"] * found["boxes"].new_tensor([scale_x, scale_y, scale_x, scale_y])
        boxes = torch.minimum(boxes, boxes.new_tensor([width, height, width, height])).clamp(min=0)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        detections = {
            "boxes": boxes[kept],
            "scores": found["scores"][kept],
            "labels": found["labels"][kept] - self.first_label,
        }
        if "masks" in found:
            detections["masks"] = paste_masks(found["masks"][kept], boxes[kept], size, self.mask_threshold)
        return detections


class MaskRCNNDetector(TorchvisionDetector):
    """torchvision's Mask R-CNN, whose class 0 is background."""

    first_label = 1

    def probe(self) -> Probe:
        """Return the detector in the form that `replace_sites` takes."""
        heads = self.model.roi_heads
        parts = {
            "backbone": self.model.backbone,
            "rpn": self.model.rpn.head,
            "box_head": heads.box_head,
            "box_predictor": heads.box_predictor,
            "mask_head": heads.mask_head,
            "mask_predictor": heads.mask_predictor,
        }
        cells = heads.box_roi_pool.cells, heads.mask_roi_pool.cells

        def run(parts: Mapping[str, nn.Module], images: Tensor) -> None:
            levels = list(parts["backbone"](images).values())
            parts["rpn"](levels)
            box_region, mask_region = (zero_region(levels[0].shape[1], side, like=images) for side in cells)
            parts["box_predictor"](parts["box_head"](box_region))
            parts["mask_predictor"](parts["mask_head"](mask_region))

        return Probe(parts, run)


class RetinaNetDetector(TorchvisionDetector):
    """torchvision's RetinaNet, which has no background class."""

    first_label = 0

    def probe(self) -> Probe:
        """Return the detector in the form that `replace_sites` takes."""

        def run(parts: Mapping[str, nn.Module], images: Tensor) -> None:
            parts["head"](list(parts["backbone"](images).values()))

        return Probe({"backbone": self.model.backbone, "head": self.model.head}, run)

"""Mask R-CNN above the pyramid: region proposals, box head and mask head, with detectron2's losses."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from .detector import Target
from .masks import cut_masks

ImageSizes = list[tuple[int, int]]


class ProposalHead(RPNHead):
    """torchvision's, with float32 outputs under autocast too: boxes are made of them."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(features)
        return [o.float() for o in objectness], [d.float() for d in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with L1 in place of smooth L1, both losses divided by the intended number of samples."""

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and of the boxes.

        `objectness` (N * anchors, 1) are logits, `deltas` (N * anchors, 4); per image `labels` (anchors,) are
        1 for an object, 0 for background, -1 for neither, `targets` (anchors, 4) the deltas to predict.
        """
        positive, negative = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        sampled = positive | negative
        normalizer = self.fg_bg_sampler.batch_size_per_image * len(labels)
        loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        box_loss = F.l1_loss(deltas[positive], torch.cat(targets)[positive], reduction="sum")
        return loss / normalizer, box_loss / normalizer


class PyramidPool(nn.Module):
    """RoIAlign on the level of a pyramid that suits the size of each region (arXiv 1612.03144, Eq. 1).

    `cells` is the side of the pooled map, `strides_px` are those of the levels that regions are pooled from;
    a region of side `canonical_px` is pooled from the level of stride 16.
    """

    # torchvision's MultiScaleRoIAlign cannot be told to align: it reads half a cell beside the region.

    def __init__(self, cells: int, strides_px: Sequence[int], canonical_px: float) -> None:
        super().__init__()
        self.cells = cells
        self.strides_px = tuple(strides_px)
        exponents = [stride.bit_length() - 1 for stride in self.strides_px]
        self._level_of = LevelMapper(
            exponents[0], exponents[-1], canonical_scale=canonical_px, canonical_level=4
        )

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: ImageSizes) -> Tensor:
        """Return (sum of n, channels, cells, cells) for the boxes (n, 4) of each image, in their order."""
        maps = list(features.values())[: len(self.strides_px)]
        counts = torch.tensor([len(b) for b in boxes], device=maps[0].device)
        image = torch.arange(len(boxes), device=maps[0].device).repeat_interleave(counts)
        regions = torch.cat([image[:, None].float(), torch.cat(boxes).float()], dim=1)
        levels = self._level_of(boxes)
        pooled = maps[0].new_zeros(len(regions), maps[0].shape[1], self.cells, self.cells)
        for level, (features_there, stride) in enumerate(zip(maps, self.strides_px, strict=True)):
            here = torch.where(levels == level)[0]
            values = roi_align(features_there, regions[here], self.cells, 1 / stride, aligned=True)
            pooled = pooled.index_copy(0, here, values.to(pooled.dtype))
        return pooled


class RegionHeads(RoIHeads):
    """torchvision's box and mask heads, with L1 for the boxes, thresholded mask targets and no offset.

    Labels are torchvision's: 0 is background, classes start at 1.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: ImageSizes,
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Return no detections and the losses in training, detections and no losses otherwise.

        `features` are the pyramid's maps, finest first, `proposals` boxes (n, 4) and `sizes` (height, width)
        of every image.
        """
        if self.training:
            return [], self._losses(features, proposals, sizes, targets)
        return self._detections(features, proposals, sizes), {}

    def _losses(self, features: Any, proposals: Any, sizes: Any, targets: Any) -> dict[str, Tensor]:
        boxes, matches, labels, deltas = self.select_training_samples(proposals, targets)
        logits, predicted = self._predict_boxes(features, boxes, sizes)
        found = [label > 0 for label in labels]
        boxes, matches, kinds = (
            [values[chosen] for values, chosen in zip(whole, found, strict=True)]
            for whole in (boxes, matches, labels)
        )
        masks = self._predict_masks(features, boxes, sizes)
        wanted = [
            cut_masks(target["masks"], match, box, masks.shape[-1])
            for target, match, box in zip(targets, matches, boxes, strict=True)
        ]
        return {
            **box_losses(logits, predicted, torch.cat(labels), torch.cat(deltas)),
            "loss_mask": mask_loss(masks, torch.cat(wanted), torch.cat(kinds)),
        }

    def _detections(self, features: Any, proposals: Any, sizes: Any) -> list[Target]:
        logits, deltas = self._predict_boxes(features, proposals, sizes)
        boxes, scores, labels = self.postprocess_detections(logits, deltas, proposals, sizes)
        masks = self._predict_masks(features, boxes, sizes).sigmoid()
        chosen = masks[torch.arange(len(masks), device=masks.device), torch.cat(labels)]
        parts = chosen.split([len(box) for box in boxes])
        return [
            {"boxes": box, "scores": score, "labels": label, "masks": mask}
            for box, score, label, mask in zip(boxes, scores, labels, parts, strict=True)
        ]

    def _predict_boxes(self, features: Any, boxes: Any, sizes: Any) -> tuple[Tensor, Tensor]:
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))
        return logits.float(), deltas.float()

    def _predict_masks(self, features: Any, boxes: Any, sizes: Any) -> Tensor:
        masks: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, sizes)))
        return masks.float()


def box_losses(logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return cross entropy of the classes and L1 of the boxes of objects, both per sampled region.

    `logits` (n, 1 + classes), `deltas` (n, 4 * (1 + classes)), a box for every class; `labels` (n,), 0 is
    background; `targets` (n, 4), to be predicted where there is an object.
    """
    objects = torch.where(labels > 0)[0]
    of_class = deltas.unflatten(1, (-1, 4))[objects, labels[objects]]
    count = max(1, len(labels))
    return {
        "loss_classifier": F.cross_entropy(logits, labels, reduction="sum") / count,
        "loss_box_reg": F.l1_loss(of_class, targets[objects], reduction="sum") / count,
    }


def mask_loss(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross entropy of the masks of the right classes; 0 if there is no object.

    `logits` (n, 1 + classes, cells, cells), `targets` (n, cells, cells) of 0 and 1, `labels` (n,).
    """
    of_class = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(of_class, targets, reduction="sum") / max(1, targets.numel())

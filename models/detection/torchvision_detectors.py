"""Mask R-CNN and RetinaNet put together from torchvision's classes, with detectron2's details where cheap.

Where the two libraries still differ: docs/detectors.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from .anchors import Anchors
from .backbone import P6P7, TRUNK_STRIDES_PX, Trunk
from .detector import Detector, Target
from .images import ImageBatch
from .masks import paste_masks
from .recipe import RETINANET_STRIDES_PX, RPN_STRIDES_PX, DetectorRecipe
from .regions import ProposalHead, ProposalNetwork, PyramidPool, RegionHeads
from .retinanet_head import RetinaNetHead
from .sites import Probe, mask_rcnn_probe, retinanet_probe


class TorchvisionDetector(Detector):
    """A network of torchvision, without its resizing, behind the interface of both libraries."""

    first_label: int  # of the first class, in `model`
    model: Any

    def __init__(self, model: nn.Module, recipe: DetectorRecipe) -> None:
        super().__init__()
        self.model = model
        self.mask_threshold = recipe.mask_threshold

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        shifted = [{**target, "labels": target["labels"] + self.first_label} for target in targets]
        losses: dict[str, Tensor] = self.model(images, shifted)
        return losses

    def detections(self, images: list[Tensor], original_sizes: list[tuple[int, int]]) -> list[Target]:
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
        heads = self.model.roi_heads
        parts = {
            "backbone": self.model.backbone,
            "rpn": self.model.rpn.head,
            "box_head": heads.box_head,
            "box_predictor": heads.box_predictor,
            "mask_head": heads.mask_head,
            "mask_predictor": heads.mask_predictor,
        }
        return mask_rcnn_probe(
            parts,
            (heads.box_roi_pool.cells, heads.mask_roi_pool.cells),
            lambda parts, region: parts["mask_predictor"](parts["mask_head"](region)),
        )


class RetinaNetDetector(TorchvisionDetector):
    """torchvision's RetinaNet, which has no background class."""

    first_label = 0

    def probe(self) -> Probe:
        return retinanet_probe(self.model.backbone, self.model.head)


class Pyramid(nn.Module):
    """The trunk and the feature pyramid on its stages from `first_stage` on, as torchvision's backbone."""

    def __init__(self, trunk: Trunk, channels: int, *, first_stage: int, top: ExtraFPNBlock) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.out_channels = channels  # torchvision asks for it by this name
        self.trunk = trunk
        self.levels = FeaturePyramidNetwork(trunk.channels[first_stage:], channels, top, nn.BatchNorm2d)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.trunk(images)
        levels: dict[str, Tensor] = self.levels(
            {f"p{index + 2}": stages[index] for index in range(self.first_stage, len(stages))}
        )
        return levels


class _TopLevels(ExtraFPNBlock):
    """P6 and P7 in torchvision's form of what is on top of a pyramid."""

    def __init__(self, levels: P6P7) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return [*p, *self.levels(c[-1])], [*names, "p6", "p7"]


def build_mask_rcnn(*, num_classes: int, trunk: Trunk, recipe: DetectorRecipe) -> MaskRCNNDetector:
    """Return Mask R-CNN with a feature pyramid on `trunk`, in training mode, from scratch.

    Batch norm is in the trunk, the pyramid, the box head and the mask head, nowhere frozen.
    """
    backbone = Pyramid(trunk, recipe.pyramid_channels, first_stage=0, top=LastLevelMaxPool())
    model = GeneralizedRCNN(
        backbone, _proposal_network(recipe), _region_heads(num_classes, recipe), _images(recipe)
    )
    return MaskRCNNDetector(model, recipe)


def build_retinanet(
    *, num_classes: int, trunk: Trunk, recipe: DetectorRecipe, replace_all: bool = False
) -> RetinaNetDetector:
    """Return RetinaNet on `trunk`, in training mode, from scratch.

    Batch norm is in the trunk, the pyramid and both subnets, nowhere frozen. `replace_all` makes the
    activation between P6 and P7 a site.
    """
    top = _TopLevels(P6P7(trunk.channels[-1], recipe.pyramid_channels, has_site=replace_all))
    anchors = Anchors(recipe.retinanet_anchor_sides_px(), recipe.anchor_ratios, RETINANET_STRIDES_PX)
    model = RetinaNet(
        Pyramid(trunk, recipe.pyramid_channels, first_stage=1, top=top),
        num_classes,
        anchor_generator=anchors,
        head=RetinaNetHead(recipe, anchors.num_anchors_per_location()[0], num_classes),
        fg_iou_thresh=recipe.retinanet_foreground_iou,
        bg_iou_thresh=recipe.retinanet_background_iou,
        score_thresh=recipe.score_threshold,
        nms_thresh=recipe.nms_iou,
        detections_per_img=recipe.detections,
        topk_candidates=recipe.retinanet_candidates,
    )
    model.transform = _images(recipe)
    return RetinaNetDetector(model, recipe)


def _images(recipe: DetectorRecipe) -> ImageBatch:
    return ImageBatch(recipe.image_mean, recipe.image_std, recipe.size_divisible_px)


def _proposal_network(recipe: DetectorRecipe) -> ProposalNetwork:
    anchors = Anchors(recipe.rpn_anchor_sides_px(), recipe.anchor_ratios, RPN_STRIDES_PX)
    num_anchors = anchors.num_anchors_per_location()[0]
    return ProposalNetwork(
        anchors,
        ProposalHead(recipe.pyramid_channels, num_anchors, conv_depth=recipe.rpn_convs),
        fg_iou_thresh=recipe.rpn_foreground_iou,
        bg_iou_thresh=recipe.rpn_background_iou,
        batch_size_per_image=recipe.rpn_samples,
        positive_fraction=recipe.rpn_positive_fraction,
        pre_nms_top_n={"training": recipe.rpn_candidates_train, "testing": recipe.rpn_candidates_test},
        post_nms_top_n={"training": recipe.rpn_proposals_train, "testing": recipe.rpn_proposals_test},
        nms_thresh=recipe.rpn_nms_iou,
    )


def _region_heads(num_classes: int, recipe: DetectorRecipe) -> RegionHeads:
    channels = recipe.pyramid_channels
    return RegionHeads(
        box_roi_pool=PyramidPool(recipe.box_roi_cells, TRUNK_STRIDES_PX, recipe.roi_canonical_px),
        box_head=FastRCNNConvFCHead(
            (channels, recipe.box_roi_cells, recipe.box_roi_cells),
            [channels] * recipe.box_convs,
            [recipe.box_features],
            norm_layer=nn.BatchNorm2d,
        ),
        box_predictor=_box_predictor(recipe.box_features, num_classes),
        fg_iou_thresh=recipe.box_foreground_iou,
        bg_iou_thresh=recipe.box_foreground_iou,
        batch_size_per_image=recipe.region_samples,
        positive_fraction=recipe.box_positive_fraction,
        bbox_reg_weights=recipe.box_delta_weights,
        score_thresh=recipe.score_threshold,
        nms_thresh=recipe.nms_iou,
        detections_per_img=recipe.detections,
        mask_roi_pool=PyramidPool(recipe.mask_roi_cells, TRUNK_STRIDES_PX, recipe.roi_canonical_px),
        mask_head=MaskRCNNHeads(channels, [channels] * recipe.mask_convs, 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=_mask_predictor(channels, num_classes),
    )


def _box_predictor(features: int, num_classes: int) -> FastRCNNPredictor:
    predictor = FastRCNNPredictor(features, 1 + num_classes)
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    return predictor


def _mask_predictor(channels: int, num_classes: int) -> MaskRCNNPredictor:
    predictor = MaskRCNNPredictor(channels, channels, 1 + num_classes)
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    for layer in (predictor.conv5_mask, predictor.mask_fcn_logits):
        nn.init.zeros_(layer.bias)
    return predictor

"""Mask R-CNN and RetinaNet put together from detectron2's classes.

detectron2 is not on PyPI, so nothing imports this file unless `library` asks for it. No configuration file,
model zoo or trainer of detectron2 is used.
"""

from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from .backbone import P6P7, Trunk
from .detector import Detector, Target
from .detectron2_parts import (
    TRUNK_FEATURES,
    Float32Pooler,
    MaskRCNN,
    Pyramid,
    SharedNormalizerRetinaNet,
    TolerantProposals,
    hidden_batch_norm,
    with_float32_outputs,
)
from .recipe import NUM_LEVELS, RETINANET_STRIDES_PX, RPN_STRIDES_PX, DetectorRecipe
from .sites import Probe, mask_rcnn_probe, retinanet_probe

ROI_LEVELS = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}  # strides in pixels; P6 is for proposals alone
PLAIN_DELTAS = (1.0, 1.0, 1.0, 1.0)


class Detectron2Detector(Detector):
    """A network of detectron2 behind the interface of both libraries."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        inputs = [
            {"image": image, "instances": _instances(image, target)}
            for image, target in zip(images, targets, strict=True)
        ]
        # The storage is where detectron2's losses put what its own trainer would log. Its focal loss is
        # compiled by TorchScript, which optimises a function at its third call, with other roundings: a
        # resumed run would not take the same steps.
        with EventStorage(), torch.jit.optimized_execution(False):
            losses: dict[str, Tensor] = self.network(inputs)
        return losses

    def detections(self, images: list[Tensor], original_sizes: list[tuple[int, int]]) -> list[Target]:
        inputs = [
            {"image": image, "height": height, "width": width}
            for image, (height, width) in zip(images, original_sizes, strict=True)
        ]
        return [_detection(output["instances"]) for output in self.network(inputs)]


class MaskRCNNDetector(Detectron2Detector):
    """detectron2's Mask R-CNN."""

    def probe(self) -> Probe:
        heads = self.network.roi_heads
        parts = {
            "backbone": self.network.backbone,
            "rpn": self.network.proposal_generator.rpn_head,
            "box_head": heads.box_head,
            "box_predictor": heads.box_predictor,
            "mask_head": heads.mask_head,  # with its predictor
        }
        return mask_rcnn_probe(
            parts,
            (heads.box_pooler.output_size[0], heads.mask_pooler.output_size[0]),
            lambda parts, region: parts["mask_head"].layers(region),
        )


class RetinaNetDetector(Detectron2Detector):
    """detectron2's RetinaNet."""

    def probe(self) -> Probe:
        return retinanet_probe(self.network.backbone, self.network.head)


def build_mask_rcnn(*, num_classes: int, trunk: Trunk, recipe: DetectorRecipe) -> MaskRCNNDetector:
    """Return Mask R-CNN with a feature pyramid on `trunk`, in training mode, from scratch.

    Batch norm is in the trunk, the pyramid, the box head and the mask head, nowhere frozen.
    """
    pyramid = Pyramid(trunk, recipe, in_features=TRUNK_FEATURES, top_block=LastLevelMaxPool())
    model = MaskRCNN(
        recipe,
        backbone=pyramid,
        proposal_generator=_proposal_generator(recipe),
        roi_heads=StandardROIHeads(
            num_classes=num_classes,
            batch_size_per_image=recipe.region_samples,
            positive_fraction=recipe.box_positive_fraction,
            proposal_matcher=Matcher([recipe.box_foreground_iou], [0, 1]),
            **_box_parts(num_classes, recipe),
            **_mask_parts(num_classes, recipe),
        ),
    )
    return MaskRCNNDetector(model)


def build_retinanet(
    *, num_classes: int, trunk: Trunk, recipe: DetectorRecipe, replace_all: bool = False
) -> RetinaNetDetector:
    """Return RetinaNet on `trunk`, in training mode, from scratch.

    Batch norm is in the trunk, the pyramid and both subnets, nowhere frozen. `replace_all` makes the
    activation between P6 and P7 a site.
    """
    width, sides = recipe.pyramid_channels, recipe.retinanet_anchor_sides_px()
    top_block = P6P7(trunk.channels[-1], width, has_site=replace_all)
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=width)] * NUM_LEVELS,
        num_classes=num_classes,
        num_anchors=len(sides[0]) * len(recipe.anchor_ratios),
        conv_dims=[width] * recipe.retinanet_convs,
        norm="BN",
        prior_prob=recipe.prior_probability,
    )
    model = SharedNormalizerRetinaNet(
        recipe,
        backbone=Pyramid(trunk, recipe, in_features=TRUNK_FEATURES[1:], top_block=top_block),
        head=with_float32_outputs(head),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=_anchors(sides, recipe, RETINANET_STRIDES_PX),
        box2box_transform=Box2BoxTransform(weights=PLAIN_DELTAS),
        anchor_matcher=_anchor_matcher(recipe.retinanet_background_iou, recipe.retinanet_foreground_iou),
        num_classes=num_classes,
        focal_loss_alpha=recipe.focal_alpha,
        focal_loss_gamma=recipe.focal_gamma,
        test_score_thresh=recipe.score_threshold,
        test_topk_candidates=recipe.retinanet_candidates,
        test_nms_thresh=recipe.nms_iou,
        max_detections_per_image=recipe.detections,
    )
    return RetinaNetDetector(model)


def _proposal_generator(recipe: DetectorRecipe) -> TolerantProposals:
    sides = recipe.rpn_anchor_sides_px()
    head = StandardRPNHead(
        in_channels=recipe.pyramid_channels,
        num_anchors=len(sides[0]) * len(recipe.anchor_ratios),
        conv_dims=[recipe.pyramid_channels] * recipe.rpn_convs,
    )
    return TolerantProposals(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=with_float32_outputs(head),
        anchor_generator=_anchors(sides, recipe, RPN_STRIDES_PX),
        anchor_matcher=_anchor_matcher(recipe.rpn_background_iou, recipe.rpn_foreground_iou),
        box2box_transform=Box2BoxTransform(weights=PLAIN_DELTAS),
        batch_size_per_image=recipe.rpn_samples,
        positive_fraction=recipe.rpn_positive_fraction,
        pre_nms_topk=(recipe.rpn_candidates_train, recipe.rpn_candidates_test),
        post_nms_topk=(recipe.rpn_proposals_train, recipe.rpn_proposals_test),
        nms_thresh=recipe.rpn_nms_iou,
    )


def _box_parts(num_classes: int, recipe: DetectorRecipe) -> dict[str, Any]:
    width, cells = recipe.pyramid_channels, recipe.box_roi_cells
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=recipe.box_features),
        box2box_transform=Box2BoxTransform(weights=recipe.box_delta_weights),
        num_classes=num_classes,
        test_score_thresh=recipe.score_threshold,
        test_nms_thresh=recipe.nms_iou,
        test_topk_per_image=recipe.detections,
    )
    return {
        "box_in_features": list(ROI_LEVELS),
        "box_pooler": _pooler(cells, recipe),
        "box_head": FastRCNNConvFCHead(
            ShapeSpec(channels=width, height=cells, width=cells),
            conv_dims=[width] * recipe.box_convs,
            fc_dims=[recipe.box_features],
            conv_norm=hidden_batch_norm,
        ),
        "box_predictor": with_float32_outputs(predictor),
    }


def _mask_parts(num_classes: int, recipe: DetectorRecipe) -> dict[str, Any]:
    width, cells = recipe.pyramid_channels, recipe.mask_roi_cells
    return {
        "mask_in_features": list(ROI_LEVELS),
        "mask_pooler": _pooler(cells, recipe),
        "mask_head": MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=width, height=cells, width=cells),
            num_classes=num_classes,
            conv_dims=[width] * (recipe.mask_convs + 1),  # the last is the upsampling's
            conv_norm=hidden_batch_norm,
        ),
    }


def _anchors(
    sides: tuple[tuple[float, ...], ...], recipe: DetectorRecipe, strides: tuple[int, ...]
) -> DefaultAnchorGenerator:
    return DefaultAnchorGenerator(
        sizes=sides, aspect_ratios=[recipe.anchor_ratios], strides=strides, offset=0.0
    )


def _anchor_matcher(background_iou: float, foreground_iou: float) -> Matcher:
    return Matcher([background_iou, foreground_iou], [0, -1, 1], allow_low_quality_matches=True)


def _pooler(cells: int, recipe: DetectorRecipe) -> Float32Pooler:
    """RoIAlign with as many samples per cell as it has pixels, aligned to the pixels' centres."""
    return Float32Pooler(
        output_size=cells,
        scales=tuple(1 / stride for stride in ROI_LEVELS.values()),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        canonical_box_size=recipe.roi_canonical_px,
    )


def _instances(image: Tensor, target: Target) -> Instances:
    instances = Instances(tuple(image.shape[-2:]))
    instances.gt_boxes = Boxes(target["boxes"])
    instances.gt_classes = target["labels"]
    if "masks" in target:
        instances.gt_masks = BitMasks(target["masks"])
    return instances


def _detection(instances: Instances) -> Target:
    """One image's detections as plain tensors; detectron2 returns them by falling score."""
    found = {
        "boxes": instances.pred_boxes.tensor,
        "scores": instances.scores,
        "labels": instances.pred_classes,
    }
    return found | ({"masks": instances.pred_masks} if instances.has("pred_masks") else {})

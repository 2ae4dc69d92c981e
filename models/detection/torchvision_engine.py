"""Mask R-CNN and RetinaNet put together from torchvision's classes, with detectron2's details where cheap.

The two libraries implement the same papers with differences in detail. What is brought to detectron2's side,
here and in the files that this one takes its parts from:

| | torchvision's own | here, as detectron2 |
| --- | --- | --- |
| activations of the backbone | a module for sites of different width | one per site (timm's ResNet) |
| box losses | smooth L1, beta 1/9 (RPN, box head) | L1 |
| RPN losses | over the number of sampled anchors | over `rpn_samples` per image |
| RetinaNet's losses | over each image's number of object anchors | over a batch's, running mean |
| RetinaNet's norm | one for all levels | statistics per level |
| P6 of RetinaNet | of P5 if the widths are equal | of C5 |
| anchors | rounded to whole pixels, guessed strides | exact |
| RoIAlign, mask targets, pasting | half a pixel off | aligned |
| mask targets | shares of a cell | 0 or 1, from a half on |
| start of the predictors | torch's | normal, std .01 (classes), .001 (boxes, masks) |
| proposals kept, detections | 2000 in training; 300 in RetinaNet | 1000; 100 |
| resizing of images | by the model | by the data set |

What stays torchvision's: the box and mask predictors have a background class (index 0) for which they predict
a box and a mask that are not used; RetinaNet clips boxes to the image before suppression, not after;
proposals smaller than a thousandth and boxes smaller than a hundredth of a pixel are dropped. From the same
weights and the same seed both engines draw the same samples and give the same losses; runs differ because
each engine starts its heads in its own order.
"""

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from .anchors import Anchors
from .backbone import P6P7, TRUNK_STRIDES_PX, Trunk
from .images import ImageBatch
from .recipe import DetectorRecipe
from .regions import ProposalHead, ProposalNetwork, PyramidPool, RegionHeads
from .retinanet_head import RetinaNetHead
from .torchvision_detectors import MaskRCNNDetector, RetinaNetDetector

RPN_STRIDES_PX = (4, 8, 16, 32, 64)  # of P2 ... P6
RETINANET_STRIDES_PX = (8, 16, 32, 64, 128)  # of P3 ... P7


def build_mask_rcnn(*, num_classes: int, trunk: Trunk, recipe: DetectorRecipe) -> MaskRCNNDetector:
    """Return Mask R-CNN with a feature pyramid on `trunk`, in training mode, from scratch.

    Batch norm is in the trunk, the pyramid, the box head and the mask head, nowhere frozen, and not yet
    synchronised over processes.
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

    Batch norm is in the trunk, the pyramid and both subnets, there with statistics of its own for every level
    and one scale and shift for all; nowhere frozen, and not yet synchronised over processes. `replace_all`
    makes the activation between P6 and P7 a site.
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


class Pyramid(nn.Module):
    """The trunk and the feature pyramid on its stages from `first_stage` on, as torchvision's backbone.

    Attributes:
        out_channels: of every level; torchvision asks for it by this name.
    """

    def __init__(self, trunk: Trunk, channels: int, *, first_stage: int, top: ExtraFPNBlock) -> None:
        super().__init__()
        self.first_stage = first_stage
        self.out_channels = channels
        self.trunk = trunk
        self.levels = FeaturePyramidNetwork(trunk.channels[first_stage:], channels, top, nn.BatchNorm2d)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels of the pyramid, finest first."""
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
        batch_size_per_image=recipe.box_samples,
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

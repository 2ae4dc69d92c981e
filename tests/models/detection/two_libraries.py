"""What the tests of detectron2 and of its likeness to torchvision share."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from models.detection import Detector, DetectorRecipe
from tests.models.detection import tiny

# No side is a multiple of 4: no anchor ends at the border, where torchvision alone drops thin proposals.
IMAGE_SIZES = [(94, 61), (70, 90)]


def detector(architecture: str, activation: str = "pwlu", **recipe: Any) -> Detector:
    """A small detector of detectron2."""
    return tiny.detector(
        architecture, activation, library="detectron2", **{"score_threshold": 0.01, **recipe}
    )


def images() -> list[Tensor]:
    return [tiny.image(index, *size) for index, size in enumerate(IMAGE_SIZES)]


def targets(*, empty: bool = False) -> list[dict[str, Tensor]]:
    """Two objects on the first image, one on the second, or none at all."""
    counts = (0, 0) if empty else (2, 1)
    return [tiny.target(i, count, *IMAGE_SIZES[i]) for i, count in enumerate(counts)]


def settled(model: Detector) -> Detector:
    """Bring the running statistics to those of the images, where predictions differ; go to eval mode."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    model(images(), targets())
    return model.eval()


def copy_weights(torchvision: Detector, detectron2: Detector) -> None:
    """Give `detectron2` the weights and buffers of `torchvision`, of the same architecture."""
    is_mask_rcnn = hasattr(torchvision.model, "roi_heads")
    names = _mask_rcnn_names() if is_mask_rcnn else _retinanet_names()
    reorder = _background_last if is_mask_rcnn else _ratios_inside_sides
    state = {}
    for name, value in torchvision.model.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        state[names[prefix] + name.removeprefix(prefix)] = reorder(name, value)
    missing, unexpected = detectron2.network.load_state_dict(state, strict=False)
    assert not unexpected
    # the one thing that torchvision's do not have: biases in front of a normalisation, zero at the start
    assert all("_subnet." in name and name.endswith(".bias") for name in missing)


def _pyramid_names(first_level: int) -> dict[str, str]:
    names = {
        "backbone.trunk.": "backbone.bottom_up.trunk.",
        "backbone.levels.extra_blocks.levels.": "backbone.top_block.",
    }
    for level in range(first_level, 6):
        for one, other in (("inner", "lateral"), ("layer", "output")):
            block = f"backbone.levels.{one}_blocks.{level - first_level}"
            names |= _conv_and_norm(block, f"backbone.fpn_{other}{level}", norm="norm")
    return names


def _mask_rcnn_names() -> dict[str, str]:
    head = "proposal_generator.rpn_head"
    names = _pyramid_names(2) | {
        "rpn.head.cls_logits.": f"{head}.objectness_logits.",
        "rpn.head.bbox_pred.": f"{head}.anchor_deltas.",
        f"roi_heads.box_head.{DetectorRecipe.box_convs + 1}.": "roi_heads.box_head.fc1.",
        "roi_heads.box_predictor.": "roi_heads.box_predictor.",
        "roi_heads.mask_predictor.conv5_mask.": "roi_heads.mask_head.deconv.",
        "roi_heads.mask_predictor.mask_fcn_logits.": "roi_heads.mask_head.predictor.",
    }
    for k in range(DetectorRecipe.rpn_convs):
        names[f"rpn.head.conv.{k}.0."] = f"{head}.conv.conv{k}."
    for k in range(DetectorRecipe.box_convs):
        names |= _conv_and_norm(f"roi_heads.box_head.{k}", f"roi_heads.box_head.conv{k + 1}", norm="norm.0")
    for k in range(DetectorRecipe.mask_convs):
        names |= _conv_and_norm(f"roi_heads.mask_head.{k}", f"roi_heads.mask_head.mask_fcn{k + 1}", "norm.0")
    return names


def _retinanet_names() -> dict[str, str]:
    names = _pyramid_names(3) | {"head.loss_normalizer": "loss_normalizer"}
    for one, subnet, prediction in (
        ("classification", "cls_subnet", "cls_score"),
        ("regression", "bbox_subnet", "bbox_pred"),
    ):
        names[f"head.{one}.predict."] = f"head.{prediction}."
        for k in range(DetectorRecipe.retinanet_convs):
            block = f"head.{one}.blocks.{k}"
            names[f"{block}.conv."] = f"head.{subnet}.{3 * k}."
            names[f"{block}.norm.levels."] = f"head.{subnet}.{3 * k + 1}."
            names[f"{block}.norm."] = f"head.{subnet}.{3 * k + 1}."
    return names


def _conv_and_norm(one: str, other: str, norm: str) -> dict[str, str]:
    return {f"{one}.0.": f"{other}.", f"{one}.1.": f"{other}.{norm}."}


def _background_last(name: str, value: Tensor) -> Tensor:
    """torchvision's first class is the background, for which it predicts boxes and masks too."""
    if "box_predictor.cls_score" in name:
        return torch.cat([value[1:], value[:1]])
    if "box_predictor.bbox_pred" in name:
        return value[4:]
    return value[1:] if "mask_fcn_logits" in name else value


def _ratios_inside_sides(name: str, value: Tensor) -> Tensor:
    """torchvision lists a position's anchors ratio by ratio, detectron2 side by side."""
    if ".predict." not in name:
        return value
    by_ratio = value.unflatten(0, (3, 3, -1))
    return by_ratio.transpose(0, 1).flatten(0, 2)

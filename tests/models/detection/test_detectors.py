"""Whole detectors of the library torchvision, tiny: losses, gradients, detections."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, box_iou

from models.detection import ARCHITECTURES, Detector
from models.detection.masks import cut_masks
from models.detection.retinanet_head import LevelNorm2d
from models.sync_batch_norm import SyncBatchNorm2d
from tests.models.detection import tiny

SIZE = {"height": 64, "width": 96}
ORIGINAL = (192, 144)  # three times as high, one and a half times as wide
SCALE = torch.tensor([1.5, 3, 1.5, 3])


def train_step(model: Detector, *counts: int) -> tuple[dict[str, float], dict[str, Tensor | None]]:
    """The losses and the gradients by name for a batch of images with so many objects."""
    model.zero_grad()
    torch.manual_seed(1)
    losses = model(*tiny.batch(*counts, **SIZE))
    tiny.total(losses).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("activation", ["relu", "swish", "frelu", "pwlu"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_with_and_without_objects(architecture: str, activation: str) -> None:
    """Every parameter takes part on every process; in different graphs synchronised norms would hang."""
    model = tiny.detector(architecture, activation)
    assert all(parameter.requires_grad for parameter in model.parameters())
    for counts in ((2, 0), (0, 0)):
        losses, gradients = train_step(model, *counts)
        assert all(0 <= loss < 10 for loss in losses.values()), losses
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        boxes = [loss for name, loss in losses.items() if "box" in name or "mask" in name]
        assert all((loss > 0) == (sum(counts) > 0) for loss in boxes), losses
    assert not any(buffer.isnan().any() for buffer in model.buffers())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_norms_are_everywhere_but_in_the_proposal_head(architecture: str) -> None:
    model = tiny.detector(architecture)
    where = [name.split(".")[1:3] for name, m in model.named_modules() if isinstance(m, SyncBatchNorm2d)]
    in_trunk, in_pyramid = where.count(["backbone", "trunk"]), where.count(["backbone", "levels"])
    heads = {"mask_rcnn": 4 + 4, "retinanet": 2 * 4 * 5}[architecture]
    assert (in_trunk, in_pyramid) == (20, {"mask_rcnn": 8, "retinanet": 6}[architecture])
    assert len(where) == in_trunk + in_pyramid + heads
    kinds = [type(module) for module in model.modules()]
    assert FrozenBatchNorm2d not in kinds and nn.BatchNorm2d not in kinds
    assert kinds.count(LevelNorm2d) == {"mask_rcnn": 0, "retinanet": 8}[architecture]


def trained(architecture: str, steps: int = 2) -> Detector:
    """A detector with running statistics of real inputs, in eval mode, that finds something."""
    model = tiny.detector(architecture, score_threshold=0.001)
    for _ in range(steps):
        train_step(model, 2, 1)
    return model.eval()


@torch.no_grad()
def detect(model: Detector, images: list[Tensor], sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    return model(images, original_sizes=sizes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_detections_of_images_of_many_sizes(architecture: str) -> None:
    model = trained(architecture)
    shapes = [(64, 96), (37, 90), (130, 33)]
    originals = [(64, 96), (74, 270), (65, 20)]
    images = [tiny.image(index, *shape) for index, shape in enumerate(shapes)]
    for found, (height, width) in zip(detect(model, images, originals), originals, strict=True):
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        assert 0 < len(boxes) <= 100 and boxes.shape == (len(scores), 4) and labels.shape == scores.shape
        assert (boxes.dtype, scores.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert 0 <= labels.min() and labels.max() < tiny.NUM_CLASSES
        assert boxes.min() >= 0 and (boxes <= torch.tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ("masks" in found) == (architecture == "mask_rcnn")
        if "masks" in found:
            assert found["masks"].shape == (len(boxes), height, width) and found["masks"].dtype == torch.bool


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_found(architecture: str) -> None:
    model = tiny.detector(architecture, score_threshold=1.0).eval()
    (found,) = detect(model, [tiny.image(0)], [ORIGINAL])
    assert found["boxes"].shape == (0, 4) and found["scores"].shape == found["labels"].shape == (0,)
    if architecture == "mask_rcnn":
        assert found["masks"].shape == (0, *ORIGINAL)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lower_precision_keeps_boxes_and_losses_in_float32(architecture: str) -> None:
    model = tiny.detector(architecture, score_threshold=0.001)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*tiny.batch(2, 0))
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        tiny.total(losses).backward()
        (found,) = detect(model.eval(), [tiny.image(0)], [ORIGINAL])
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def assert_found(found: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Exactly the objects of the target, scaled to the original image."""
    overlap = box_iou(target["boxes"] * SCALE, found["boxes"])
    assert len(found["boxes"]) == len(target["boxes"])
    best, index = overlap.max(1)
    assert (best > 0.999).all() and torch.equal(found["labels"][index], target["labels"])
    assert (found["scores"] > 0.9).all()
    if "masks" in found:
        right = tiny.ellipses(target["boxes"] * SCALE, *ORIGINAL)
        masks = found["masks"][index]
        share = (masks & right).flatten(1).sum(1) / (masks | right).flatten(1).sum(1)
        assert (share > 0.93).all(), share


class OracleHead(nn.Module):
    """Predicts what `model` wants to hear about images with these targets."""

    def __init__(self, model: Any, targets: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.own, self.targets = model.head, targets
        self.anchors, self.matcher = model.anchor_generator, model.proposal_matcher

    def forward(self, levels: list[Tensor]) -> dict[str, Tensor]:
        anchors = self.anchors(ImageList(levels[0], [(64, 96)]), levels)[0]
        logits = torch.full((len(self.targets), len(anchors), tiny.NUM_CLASSES), -12.0)
        deltas = torch.zeros(len(self.targets), len(anchors), 4)
        for image, target in enumerate(self.targets):
            match = self.matcher(box_iou(target["boxes"], anchors))
            objects = torch.where(match >= 0)[0]
            logits[image, objects, target["labels"][match[objects]]] = 12
            wanted = target["boxes"][match[objects]]
            deltas[image, objects] = self.own.box_coder.encode_single(wanted, anchors[objects])
        return {"cls_logits": logits, "bbox_regression": deltas}

    def compute_loss(self, *arguments: Any) -> dict[str, Tensor]:
        return self.own.compute_loss(*arguments)


def test_retinanet_finds_what_it_is_trained_to_find() -> None:
    """Predictions without a loss are, as detections, the targets: boxes and labels in both directions."""
    model: Any = tiny.detector("retinanet")
    images, targets = tiny.batch(3, 2, **SIZE)
    model.model.head = OracleHead(model.model, targets)
    losses = model(images, targets)
    assert losses["classification"] < 1e-3 and losses["bbox_regression"] < 1e-6
    wrong = [{**target, "labels": (target["labels"] + 1) % tiny.NUM_CLASSES} for target in targets]
    assert model(images, wrong)["classification"] > 0.1
    for found, target in zip(detect(model.eval(), images, [ORIGINAL] * 2), targets, strict=True):
        assert_found(found, target)


class OracleRegions(nn.Module):
    """Stands for the proposals and for the heads' predictions: each object's box, class and mask."""

    def __init__(self, model: Any, targets: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self.targets = targets
        self.labels = torch.cat([target["labels"] for target in targets]) + 1
        model.rpn = self
        model.roi_heads.box_predictor.forward = self.predict_boxes
        model.roi_heads.mask_predictor.forward = self.predict_masks

    def forward(self, *_: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [target["boxes"] for target in self.targets], {}

    def predict_boxes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = 12 * torch.eye(1 + tiny.NUM_CLASSES)[self.labels]
        return logits, torch.zeros(len(x), 4 * (1 + tiny.NUM_CLASSES))

    def predict_masks(self, x: Tensor) -> Tensor:
        masks = [cut_masks(t["masks"], torch.arange(len(t["boxes"])), t["boxes"], 28) for t in self.targets]
        logits = torch.full((len(x), 1 + tiny.NUM_CLASSES, 28, 28), -12.0)
        logits[torch.arange(len(x)), self.labels] = 24 * torch.cat(masks) - 12
        return logits


def test_mask_rcnn_finds_what_it_is_trained_to_find() -> None:
    """Its proposals are the objects; that the targets are without loss and come out as detections."""
    model: Any = tiny.detector("mask_rcnn", nms_iou=0.99)
    images, targets = tiny.batch(3, 2, **SIZE)
    heads = model.model.roi_heads
    OracleRegions(model.model, targets)
    heads.add_gt_proposals = lambda proposals, boxes: proposals
    losses = model(images, targets)
    assert all(loss < 1e-3 for loss in losses.values()), losses
    wrong = [{**target, "labels": (target["labels"] + 1) % tiny.NUM_CLASSES} for target in targets]
    assert model(images, wrong)["loss_classifier"] > 1 and model(images, wrong)["loss_mask"] > 1
    for found, target in zip(detect(model.eval(), images, [ORIGINAL] * 2), targets, strict=True):
        assert_found(found, target)


def test_mask_rcnn_without_any_proposal() -> None:
    model: Any = tiny.detector("mask_rcnn")
    model.model.rpn.forward = lambda *_: ([torch.zeros(0, 4)], {})
    losses = model(*tiny.batch(0))
    assert tiny.total(losses) == 0
    (found,) = detect(model.eval(), [tiny.image(0)], [ORIGINAL])
    assert found["masks"].shape == (0, *ORIGINAL)


def test_retinanet_s_losses_are_divided_by_a_running_number_of_object_anchors() -> None:
    model: Any = tiny.detector("retinanet")
    head = model.model.head
    assert head.loss_normalizer == 100
    train_step(model, 0, 0)
    assert head.loss_normalizer.item() == pytest.approx(0.9 * 100 + 0.1)  # at least one is counted
    assert "model.head.loss_normalizer" in model.state_dict()


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (0, {}, "images: expected at least one, got none"),
        (1, {}, "targets: expected 1, as many as images, in training, got none"),
        (1, {"targets": tiny.batch(1, 1)[1]}, "targets: expected 1, .* got 2"),
        (1, {"original_sizes": [ORIGINAL] * 2}, "original_sizes: expected 1, as many as images, got 2"),
    ],
)
def test_numbers_of_images_targets_and_sizes_that_differ_are_named(
    images: int, options: dict[str, Any], words: str
) -> None:
    model = tiny.detector("retinanet", "relu").train("original_sizes" not in options)
    with pytest.raises(ValueError, match=words):
        model([tiny.image(0)] * images, **options)

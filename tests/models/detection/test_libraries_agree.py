"""Both libraries have the same activation sites and, from the same weights, compute the same."""

import torch
from pytest import importorskip, mark

from models import activation_factory
from models.detection import ARCHITECTURES, Detector, build_detector
from pwlu import PWLU
from tests.models.detection import tiny
from tests.models.detection.two_libraries import copy_weights, images, settled, targets

importorskip("detectron2", reason="detectron2 is not installed")

both_architectures = mark.parametrize("architecture", ARCHITECTURES)


@both_architectures
@mark.parametrize(("backbone", "replace_all"), [("resnet50", False), ("resnet18", True)])
def test_both_libraries_have_the_same_sites(architecture: str, backbone: str, replace_all: bool) -> None:
    found = []
    for library in ("torchvision", "detectron2"):
        make = activation_factory("pwlu")
        options = {"num_classes": 3, "backbone": backbone, "replace_all": replace_all}
        model, report = build_detector(architecture, library, make, **options)
        widths = sorted(site.num_channels for site in report.sites if site.replaced)
        added = sum(p.numel() for m in model.modules() if isinstance(m, PWLU) for p in m.parameters())
        assert sum(isinstance(module, PWLU) for module in model.modules()) == len(widths)
        found.append((widths, len(report.sites), added))
    assert found[0] == found[1]
    if backbone == "resnet50":
        assert len(found[0][0]) == {"mask_rcnn": 60, "retinanet": 57}[architecture]


@both_architectures
def test_both_libraries_compute_the_same(architecture: str) -> None:
    """Losses, gradients and detections, from the same weights and random numbers."""
    # torchvision's RetinaNet clips boxes before it suppresses some, detectron2's after: none is suppressed
    nms_iou = 1.0 if architecture == "retinanet" else 0.5
    first = tiny.detector(architecture, "swish", nms_iou=nms_iou)
    spread_predictions(first)
    second = tiny.detector(architecture, "swish", nms_iou=nms_iou, library="detectron2")
    copy_weights(first, second)
    losses, gradients, detections = [], [], []
    for model in (first, second):
        torch.manual_seed(3)
        values = torch.stack(list(model(images(), targets()).values()))
        values.sum().backward()
        losses.append(values.sort().values)
        gradients.append([p.grad for n, p in model.named_parameters() if ".trunk." in n])
        with torch.no_grad():
            detections.append(settled(model)(images(), original_sizes=[(144, 96), (70, 96)]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    assert all(len(found["scores"]) > 20 for found in detections[0])
    torch.testing.assert_close(*detections, rtol=1e-4, atol=1e-4)


def spread_predictions(model: Detector) -> None:
    """Scale the last layers: at the start scores and overlaps are nearly equal, and rounding decides.

    The more so as torchvision orders proposals by their probability, which is the same number for logits that
    still differ, and detectron2 by the logit.
    """
    factors = {"rpn.head.cls_logits": 1000, "rpn.head.bbox_pred": 30}
    factors |= {"bbox": 1.5, "regression": 1.5, "predict": 30}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(next((factors[word] for word in factors if word in name), 1))

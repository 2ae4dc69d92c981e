"""Which activations of the detectors are replaced, and by how many parameters."""

import torch
from pytest import mark, raises
from torch import nn

from models import activation_factory, is_activation
from models.detection import ARCHITECTURES, build_detector
from tests.models.test_classification import ADDED, NETWORKS

ACTIVATIONS = ("relu", "swish", "frelu", "pwlu")  # Table 3
TRUNK = NETWORKS["resnet50"]
HEAD_SITES = {"mask_rcnn": 2 + 4 + 4 + 1, "retinanet": 2 * 4}
KEPT_WIDTH = {"mask_rcnn": 1024, "retinanet": 256}  # after the fully connected layer; between P6 and P7
PREFIXES = {
    "mask_rcnn": {"backbone": 49, "rpn": 2, "box_head": 4, "mask_head": 4, "mask_predictor": 1},
    "retinanet": {"backbone": 49, "head": 8},
}


def on_meta(architecture, activation, **options):
    """The paper's detector without memory for its weights, and its report."""
    with torch.device("meta"):
        make = activation_factory(activation)
        return build_detector(architecture, "torchvision", make, num_classes=80, **options)


@mark.parametrize("activation", ACTIVATIONS)
@mark.parametrize("architecture", ARCHITECTURES)
def test_the_paper_s_detectors_take_every_activation_at_the_same_sites(architecture, activation):
    model, report = on_meta(architecture, activation)
    replaced = [site for site in report.sites if site.replaced]
    expected = {"mask_rcnn": 60, "retinanet": 57}[architecture]
    assert (len(replaced), len(report.sites)) == (expected, expected + 1)
    roots = [site.name.split(".")[0] for site in replaced]
    assert {root: roots.count(root) for root in roots} == PREFIXES[architecture]
    channels = sum(site.num_channels for site in replaced)
    assert channels == TRUNK.channels + 256 * HEAD_SITES[architecture]
    per_channel, _ = ADDED[activation]
    added = per_channel * channels
    assert report.parameters_after - report.parameters_before == added
    assert sum(p.numel() for p in model.parameters()) == report.parameters_after
    kind = type(activation_factory(activation)(1))
    assert sum(type(module) is kind for module in model.modules()) >= expected
    modules = [module for module in model.modules() if is_activation(module)]
    assert sum(p.numel() for module in modules for p in module.parameters()) == added


@mark.parametrize("architecture", ARCHITECTURES)
def test_what_stays_relu_is_replaced_on_request(architecture):
    model, report = on_meta(architecture, "pwlu")
    (kept,) = [site for site in report.sites if not site.replaced]
    assert kept.num_channels == KEPT_WIDTH[architecture]
    assert sum(type(module) is nn.ReLU for module in model.modules()) == (architecture == "mask_rcnn")
    more, report_of_all = on_meta(architecture, "pwlu", replace_all=True)
    assert all(site.replaced for site in report_of_all.sites)
    assert len(report_of_all.sites) == len(report.sites)
    per_channel, _ = ADDED["pwlu"]
    added = report_of_all.parameters_after - report.parameters_after
    assert added == per_channel * KEPT_WIDTH[architecture]
    assert not any(type(module) is nn.ReLU for module in more.modules())


def test_shared_heads_have_one_function_for_all_levels():
    for architecture, root in (("mask_rcnn", "rpn"), ("retinanet", "head")):
        _, report = on_meta(architecture, "pwlu")
        shared = [site for site in report.sites if site.name.startswith(root)]
        assert all("serves 5 calls" in site.reason for site in shared)


def test_frelu_has_no_map_after_the_fully_connected_layer():
    with raises(ValueError, match="replace_all=True puts FReLU.*box_head.6"):
        on_meta("mask_rcnn", "frelu", replace_all=True)
    on_meta("retinanet", "frelu", replace_all=True)


@mark.parametrize(
    "arguments, words",
    [
        ({"architecture": "yolo"}, "architecture is 'yolo', expected one of mask_rcnn, retinanet"),
        ({"library": "mmdet"}, "library is 'mmdet', expected one of torchvision, detectron2"),
        ({"num_classes": 0}, "num_classes is 0, expected >= 1"),
        ({"backbone": "resnet81"}, "model name is 'resnet81', .*did you mean resnet18"),
        ({"backbone": "vit_tiny_patch16_224"}, r"strides \(16, 16, 16, 16\); a detector needs .* resnet50"),
    ],
)
def test_errors(arguments, words):
    right = {"architecture": "retinanet", "library": "torchvision", "num_classes": 2, "backbone": "resnet18"}
    values = right | arguments
    with torch.device("meta"), raises(ValueError, match=words):
        build_detector(values.pop("architecture"), values.pop("library"), nn.PReLU, **values)


def test_a_library_that_is_not_installed_is_one_sentence(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "models.detection.detectron2_detectors", raising=False)
    monkeypatch.delitem(sys.modules, "models.detection.detectron2_parts", raising=False)
    for loaded in [name for name in sys.modules if name.startswith("detectron2.")]:
        monkeypatch.delitem(sys.modules, loaded)
    words = (
        "library=detectron2 needs the package 'detectron2.*', which is not installed; library=torchvision "
    )
    with raises(ValueError, match=words + "needs nothing more; .*02b5c4e.*https://detectron2.readthedocs"):
        build_detector("retinanet", "detectron2", nn.PReLU, num_classes=2)

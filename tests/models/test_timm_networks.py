"""timm's trained weights: taken from a file in place of the internet."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from engine.training.trained_network import HEAD, Networks
from models import activation_factory, build_classifier, put_activations
from models.detection.backbone import build_trunk
from pwlu import PWLU


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Tensor]:
    """Weights of test_resnet for 1000 classes; timm then takes these for its own."""
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=1000)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth"), "num_classes": 1000}
    create = partial(timm.create_model, pretrained_cfg_overlay=overlay)
    monkeypatch.setattr(timm, "create_model", create)
    return network.state_dict()


def build(make: Any, **options: Any) -> nn.Module:
    settings = {"num_classes": 1000, "input_size": (3, 32, 32), "pretrained": True} | options
    model, _ = build_classifier("test_resnet", make, **settings)
    return model.eval()


def test_a_pretrained_classifier_has_timm_s_weights_and_new_activations(
    weights: Mapping[str, Tensor],
) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = build(None)
    assert all(torch.equal(own.state_dict()[name], value) for name, value in weights.items())
    replaced = build(activation_factory("pwlu"))
    assert sum(isinstance(module, PWLU) for module in replaced.modules()) == 10
    torch.testing.assert_close(replaced(x), own(x))  # PWLU starts as ReLU, which was there


def test_another_number_of_classes_gets_a_new_classifier(weights: Mapping[str, Tensor]) -> None:
    model = build(None, num_classes=3)
    state = model.state_dict()
    assert state["fc.weight"].shape[0] == 3
    assert all(torch.equal(state[name], weights[name]) for name in weights if not name.startswith("fc."))


def test_a_network_with_timm_s_weights_keeps_its_functions(weights: Mapping[str, Tensor]) -> None:
    networks = Networks(
        build=partial(build_classifier, "test_resnet", input_size=(3, 32, 32)),
        put=partial(put_activations, input_size=(3, 32, 32)),
        factory=activation_factory,
        activation={"name": "pwlu", "init": "replaced"},
        num_classes=1000,
    )
    model, origin = networks.from_timm()
    assert (origin.is_trained, origin.new, origin.changed) == (True, "", ())
    assert len(origin.exchanges) == 10 and torch.equal(model.state_dict()["fc.bias"], weights["fc.bias"])
    _, origin = replace(networks, activation={"name": "swish"}, num_classes=3).from_timm()
    assert origin.new == HEAD and len(origin.changed) == 10


def test_a_pretrained_backbone_has_timm_s_weights(weights: Mapping[str, Tensor]) -> None:
    state = build_trunk("test_resnet", pretrained=True).stages.state_dict()
    assert state and all(torch.equal(value, weights[name]) for name, value in state.items())
    assert not torch.equal(
        build_trunk("test_resnet").stages.state_dict()["conv1.0.weight"], weights["conv1.0.weight"]
    )


def test_what_cannot_be_had_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="resnet18_025 .*timm has none for this name"):
        build_classifier("resnet18_025", None, num_classes=2, input_size=(3, 32, 32), pretrained=True)

    def fail(*arguments: Any, **options: Any) -> nn.Module:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        ValueError, match=r"weights of resnet18 .*ConnectionError: no route to host\); .*HF_HOME"
    ):
        build_classifier("resnet18", None, num_classes=2, input_size=(3, 32, 32), pretrained=True)
    with pytest.raises(ValueError, match="did you mean resnet18"):
        build_classifier("resnet81", None, num_classes=2, input_size=(3, 32, 32), pretrained=True)


def test_original_keeps_every_activation_and_says_where_they_are() -> None:
    model, report = build_classifier("mobilenetv3_small_050", None, num_classes=2, input_size=(3, 64, 64))
    plain = timm.create_model("mobilenetv3_small_050", num_classes=2)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert report.parameters_before == report.parameters_after == sum(p.numel() for p in plain.parameters())
    assert report.summary().startswith("replaced 0 of ") and "Hardswish" in str(report)
    assert {site.reason for site in report.sites} >= {"the network's own"}


@pytest.mark.parametrize("mode", ["channel", "layer"])
def test_every_pwlu_starts_as_what_was_there(mode: str) -> None:
    make = activation_factory("pwlu", init="replaced", mode=mode)
    model, report = build_classifier(
        "mobilenetv3_small_050", make, init="replaced", num_classes=2, input_size=(3, 64, 64)
    )
    assert {(site.kind, site.starts_as) for site in report.sites if site.replaced} == {
        ("Hardswish", "hardswish"),
        ("ReLU", "relu"),
    }
    assert model.bn1.act.num_parameters == (16 if mode == "channel" else 1)

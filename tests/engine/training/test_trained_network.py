"""Trained weights from a file, and what takes the place of their activations."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from engine.config.experiment import Experiment
from engine.data.classes import numbered
from engine.errors import UserError
from engine.training.checkpoint import CheckpointError
from engine.training.origin import Origin
from engine.training.starting_weights import StartingWeights
from engine.training.trained_network import ALL_BUT_BACKBONE, HEAD, NetworkError, Networks
from models import FReLU, activation_factory, build_classifier, put_activations
from models.detection import DetectorRecipe, build_detector, replace_sites, stages_of
from pwlu import PWLU

SIZE = (3, 64, 64)


def weights_of(
    tensors: Mapping[str, Tensor],
    activation: Mapping[str, Any] | None = None,
    input_size: tuple[int, int, int] | None = None,
    has_learned: bool = True,
) -> StartingWeights:
    """Return a plain state dict, or a checkpoint: of a classifier of this input size, else of a detector."""
    if activation is None:
        return StartingWeights(Path("file.pt"), "", tensors, None)
    experiment = {"activation.name": activation["name"]}
    data = {} if input_size is None else {"image_size_px": input_size[1]}
    checkpoint = {
        "settings": {"activation": activation, "data": data},
        "experiment": experiment | ({"model.architecture": "mask_rcnn"} if input_size is None else {}),
        "phases": {"step_count": int(has_learned), "phase1_steps": 1},
    }
    return StartingWeights(Path("file.pt"), "", tensors, checkpoint)


def networks(network: str, num_classes: int = 4, **activation: Any) -> Networks:
    return Networks(
        build=partial(build_classifier, network, input_size=SIZE),
        put=partial(put_activations, input_size=SIZE),
        factory=activation_factory,
        activation={"name": "pwlu"} | activation,
        num_classes=num_classes,
    )


def trained(name: str, num_classes: int = 4, activation: str = "original", **options: Any) -> nn.Module:
    """Return a network in evaluation mode whose statistics and slopes are not those of the start."""
    torch.manual_seed(1)
    make = activation_factory(activation, **options)
    model, _ = build_classifier(name, make, num_classes=num_classes, input_size=SIZE)
    model.train()(torch.randn(8, *SIZE))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.1, 0.5)
            if isinstance(module, PWLU):
                module.points += 0.1 * torch.randn_like(module.points)
    return model.eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(seed))


def as_its_start(model: nn.Module) -> nn.Module:
    """Return a copy whose PWLUs are their starting functions, exactly."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, PWLU):
            module.forward = module.start
    return model


def begin(wanted: Networks, weights: StartingWeights, keeps: bool = False) -> tuple[nn.Module, Origin]:
    return wanted.from_weights(weights, has_classes=True, keeps_activations=keeps)


def test_a_state_dict_of_timm_starts_as_its_own_activations() -> None:
    source = trained("mobilenetv3_small_050")
    model, origin = begin(networks("mobilenetv3_small_050", init="replaced"), weights_of(source.state_dict()))
    assert origin.report.summary().startswith("replaced 23 of 33")
    assert {site.starts_as for site in origin.report.sites if site.replaced} == {"relu", "hardswish"}
    assert (origin.is_trained, origin.new, origin.keeps_functions) == (True, "", False)
    assert origin.changed == ()
    assert torch.equal(as_its_start(model)(images()), source(images()))


@pytest.mark.parametrize("mode", ["channel", "layer"])
def test_another_start_than_what_was_there_is_named(mode: str) -> None:
    source = trained("mobilenetv3_small_050")
    _, origin = begin(networks("mobilenetv3_small_050", mode=mode), weights_of(source.state_dict()))
    hardswish = [site.name for site in origin.report.sites if site.replaced and site.kind == "Hardswish"]
    assert hardswish and origin.changed == tuple(f"{name} (Hardswish)" for name in hardswish)
    for name in ("relu", "frelu", "swish"):
        _, origin = begin(
            networks("resnet18_025", name=name), weights_of(trained("resnet18_025").state_dict())
        )
        assert bool(origin.changed) == (name != "relu")


def test_learned_slopes_become_the_start_and_a_state_dict_brings_them() -> None:
    source = trained("resnet18_025", activation="prelu")
    weights = weights_of(source.state_dict(), {"name": "prelu"}, SIZE)
    model, origin = begin(networks("resnet18_025", init="replaced"), weights)
    assert origin.changed == ()
    torch.testing.assert_close(as_its_start(model)(images()), source(images()))
    again, _ = networks("resnet18_025", init="replaced").from_scratch()  # as an evaluation builds it
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(as_its_start(again)(images()), source(images()))


def test_undone_brings_the_old_activations_back_for_a_while() -> None:
    source = trained("mobilenetv3_small_050")
    model, origin = begin(networks("mobilenetv3_small_050"), weights_of(source.state_dict()))
    model.eval()
    with pytest.raises(KeyError), origin.undone():
        assert torch.equal(model(images()), source(images()))
        raise KeyError
    assert sum(isinstance(module, PWLU) for module in model.modules()) == 23
    assert not torch.allclose(model(images()), source(images()), atol=1e-3)


def test_learned_functions_of_the_same_shape_stay() -> None:
    source = trained("resnet18_025", activation="pwlu", num_intervals=6)
    weights = weights_of(source.state_dict(), {"name": "pwlu", "num_intervals": 6}, SIZE)
    model, origin = begin(networks("resnet18_025", num_intervals=6), weights, keeps=True)
    assert (
        origin.keeps_functions and origin.exchanges == () and origin.report.summary().startswith("replaced")
    )
    assert torch.equal(model.eval()(images()), source(images()))
    with pytest.raises(CheckpointError, match="no PWLU can start as what its pwlu learned"):
        begin(networks("resnet18_025", num_intervals=8, init="replaced"), weights)
    _, origin = begin(networks("resnet18_025", num_intervals=8), weights)
    assert len(origin.changed) == len(origin.exchanges) == 19  # each has moved from ReLU


@pytest.mark.parametrize("has_classes", [True, False])
def test_a_head_for_other_classes_is_new(has_classes: bool) -> None:
    source = trained("resnet18_025", num_classes=4 if not has_classes else 7)
    state = source.state_dict()
    wanted = networks("resnet18_025", name="original")
    model, origin = wanted.from_weights(weights_of(state), has_classes=has_classes, keeps_activations=False)
    assert origin.new == HEAD
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]) != name.startswith("fc."), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {"x": torch.zeros(1), **state}, r"it has besides 1 \(x\)"),
        (lambda state: {k: v for k, v in state.items() if k != "bn1.weight"}, r"it lacks 1 \(bn1.weight\)$"),
        (
            lambda state: state | {"bn1.weight": torch.zeros(3)},
            r"of another shape: 1 \(bn1.weight, there \(3,\), here",
        ),
        (
            lambda state: {f"deeper.{k}": v for k, v in state.items()},
            r"it lacks \d+ \(.*, \.\.\.\); it has besides \d+ \(",
        ),
        (lambda state: {}, r"it lacks \d+ \(conv1"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[Any], Any], words: str) -> None:
    state = change(dict(trained("resnet18_025").state_dict()))
    with pytest.raises(CheckpointError, match=rf"file\.pt does not fit this network; {words}"):
        begin(networks("resnet18_025"), weights_of(state))


def test_sites_of_another_image_size_are_another_network() -> None:
    source, _ = build_classifier(
        "mobilenetv3_small_050", activation_factory("prelu"), num_classes=4, input_size=(3, 32, 32)
    )
    weights = weights_of(source.state_dict(), {"name": "prelu"}, (3, 32, 32))
    with pytest.raises(CheckpointError, match=r"file.pt: blocks\..* was trained with .*data.image_size_px"):
        begin(networks("mobilenetv3_small_050", name="prelu"), weights, keeps=True)


def test_original_activations_are_the_network_s_own() -> None:
    """Else an evaluation, which knows the configuration alone, would put Hardswish in place of ReLU."""
    for name in ("relu", "prelu"):
        source = trained("mobilenetv3_small_050", activation=name)
        weights = weights_of(source.state_dict(), {"name": name}, SIZE)
        with pytest.raises(
            CheckpointError, match=f"with .*ReLU, but .* Hardswish there; give activation.name={name},"
        ):
            begin(networks("mobilenetv3_small_050", name="original"), weights)
    source = trained("resnet18_025", activation="relu")
    weights = weights_of(source.state_dict(), {"name": "relu"}, SIZE)
    begin(networks("resnet18_025", name="original"), weights)  # the same functions


@pytest.mark.parametrize("keeps", [True, False])
def test_a_checkpoint_of_phase_one_keeps_its_starts(keeps: bool) -> None:
    replacing = networks("mobilenetv3_small_050", init="replaced")
    wanted = replacing if keeps else networks("mobilenetv3_small_050")
    source, _ = replacing.from_scratch()
    settings = {"name": "pwlu", "init": "replaced"}
    weights = weights_of(source.state_dict(), settings, SIZE, has_learned=False)
    model, origin = begin(wanted, weights, keeps)
    with origin.undone():
        starts = {module.starts_as for module in model.modules() if isinstance(module, PWLU)}
    assert starts == {"relu", "hardswish"} and bool(origin.changed) != keeps
    source, _ = networks("mobilenetv3_small_050", init="silu").from_scratch()  # as from a network with SiLU
    weights = weights_of(source.state_dict(), settings, SIZE, has_learned=False)
    with pytest.raises(CheckpointError, match=r"phase I, in which .*: 23 \(bn1.act, "):
        begin(wanted, weights, keeps)


def test_old_activations_may_be_of_any_kind() -> None:
    for name in ("apl", "pau", "frelu"):
        source = trained("resnet18_025", activation=name)
        weights = weights_of(source.state_dict(), {"name": name}, SIZE)
        model, origin = begin(networks("resnet18_025"), weights)
        assert not any(isinstance(module, FReLU) for module in model.modules())
        with origin.undone():
            assert torch.equal(model.eval()(images()), source(images()))
        assert (origin.changed == ()) == (name == "apl")  # which starts as ReLU


def detectors(num_classes: int = 3, **activation: Any) -> Networks:
    recipe = DetectorRecipe(pyramid_channels=16, smallest_anchor_px=16.0, region_samples=64)
    build = partial(build_detector, "mask_rcnn", "torchvision", backbone="resnet18_025", recipe=recipe)
    return Networks(
        build=build,
        put=replace_sites,
        factory=activation_factory,
        activation={"name": "pwlu", "num_intervals": 4} | activation,
        num_classes=num_classes,
        root=methodcaller("probe"),
        backbone=stages_of,
    )


def test_a_detector_starts_from_a_detector_or_from_a_backbone() -> None:
    source, _ = detectors(name="swish").from_scratch()
    weights = weights_of(source.state_dict(), {"name": "swish"})
    model, origin = begin(detectors(init="replaced"), weights)
    assert not origin.new and origin.changed == () and len(origin.exchanges) == 30
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    with origin.undone():
        assert sum(isinstance(module, nn.SiLU) for module in model.modules()) == 30
    model, origin = begin(detectors(num_classes=5), weights)
    heads = {
        name
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, source.state_dict().get(name, tensor))
    }
    assert origin.new == HEAD and heads and all("predictor" in name for name in heads)
    source, _ = detectors(name="original").from_scratch()  # a checkpoint, though with timm's activations
    _, origin = begin(detectors(), weights_of(source.state_dict(), {"name": "original"}))
    assert not origin.new and origin.changed == ()
    backbone = timm.create_model("resnet18_025", num_classes=1000).state_dict()
    model, origin = begin(detectors(), weights_of(backbone))
    assert origin.new == ALL_BUT_BACKBONE
    for name, tensor in stages_of(model).state_dict().items():
        assert name not in backbone or torch.equal(tensor, backbone[name])
    with pytest.raises(CheckpointError, match=r"it lacks \d+ \(conv1"):
        begin(detectors(), weights_of({"fc.weight": torch.zeros(2)}))
    deeper = backbone | {"layer1.2.conv1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"it has besides 1 \(layer1.2.conv1.weight\)$"):
        begin(detectors(), weights_of(deeper))


def test_a_detector_s_backbone_starts_from_a_classifier_s_checkpoint() -> None:
    source = trained("resnet18_025", activation="prelu")
    sites = dict(source.named_modules())
    slopes = {name: site.weight for name, site in sites.items() if isinstance(site, nn.PReLU)}
    with pytest.raises(CheckpointError, match=r"it has besides 19 \(conv1.2.weight, "):
        begin(detectors(), weights_of(source.state_dict()))  # slopes, but nothing says what of
    model, origin = begin(
        detectors(init="replaced"), weights_of(source.state_dict(), {"name": "prelu"}, SIZE)
    )
    assert origin.new == ALL_BUT_BACKBONE and origin.changed == ()
    stages = stages_of(model)
    for name, slope in slopes.items():
        assert torch.equal(stages.get_submodule(name).init_slope, slope)
    with origin.undone():
        assert all(torch.equal(stages.get_submodule(name).weight, slope) for name, slope in slopes.items())


def test_what_models_refuse_is_an_error_of_every_process_and_a_crash_is_a_crash() -> None:
    nothing = Experiment({}, {}, ""), numbered(4, "photos")
    with pytest.raises(NetworkError, match="model name is 'resnet19'") as refusal:
        networks("resnet19").begin(None, *nothing, pretrained=False)
    assert refusal.value.on_every_process
    crashing = replace(networks("test_resnet"), build=lambda *arguments, **options: int("x"))
    with pytest.raises(ValueError, match="invalid literal") as crash:
        crashing.begin(None, *nothing, pretrained=False)
    assert not isinstance(crash.value, UserError)

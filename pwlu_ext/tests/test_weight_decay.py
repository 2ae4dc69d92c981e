"""Weight decay leaves the activations alone, in the optimizers of torch and of timm."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pwlu import PWLU, parameter_groups

DECAY = 0.25


class OwnPWLU(PWLU):
    """A user's subclass with a parameter of its own."""

    def __init__(self, num_parameters: int) -> None:
        super().__init__(num_parameters)
        self.mixing = nn.Parameter(torch.ones(2, 2))


def network() -> nn.Module:
    """A matrix and a kernel that decay; everything else does not."""
    shared = PWLU(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), PWLU(4), shared, nn.LayerNorm([4, 2, 2]), OwnPWLU(4), shared,
        nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def decays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The decay of every parameter of the optimizer, each of which is there once."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    pairs = [(names[p], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
    assert len(pairs) == len(dict(pairs)) == len(names)
    return dict(pairs)


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    return {name for name, decay in decays(model, optimizer).items() if decay}


@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.DataParallel, torch.compile])
def test_only_weights_decay(wrap: Callable[[nn.Module], Any]) -> None:
    """Whatever wraps the model, and however it names the parameters."""
    model = network()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(parameter_groups(wrap(model), weight_decay=DECAY), lr=1.0, weight_decay=0.5)
    assert decayed(model, optimizer) == {"0.weight", "8.weight"}
    model[0].weight.requires_grad_(True)  # frozen ones are there, for a later phase of the training
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - DECAY if name in ("0.weight", "8.weight") else 1
        assert torch.equal(parameter, factor * before[name]), name


def test_groups_can_be_told_apart() -> None:
    model = network()
    groups = {group["name"]: set(group["params"]) for group in parameter_groups(model, weight_decay=DECAY)}
    assert list(groups) == ["weights", "norm_and_bias", "activation"]
    functions = [module for module in model if isinstance(module, PWLU)]
    assert groups["activation"] == {p for module in functions for p in module.parameters()}
    assert [group["name"] for group in parameter_groups(PWLU(3), weight_decay=DECAY)] == ["activation"]


def test_torch_muon_gets_matrices_alone() -> None:
    """As the manual says it."""
    model = network()
    weights, *others = parameter_groups(model, weight_decay=DECAY)
    muon = torch.optim.Muon([p for p in weights["params"] if p.ndim == 2], lr=0.1)
    weights["params"] = [p for p in weights["params"] if p.ndim != 2]
    adamw = torch.optim.AdamW([weights, *others], lr=0.1)
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(model[8].weight)]
    of_adamw = {p for group in adamw.param_groups for p in group["params"]}
    assert of_adamw == {*model.parameters()} - {model[8].weight}
    model(torch.randn(2, 3, 2, 2)).sum().backward()
    muon.step()
    adamw.step()


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "0.1", None])
def test_a_decay_that_is_none_is_an_error(wrong: object) -> None:
    with pytest.raises(ValueError, match="`weight_decay` must be a finite number >= 0, but is"):
        parameter_groups(network(), weight_decay=wrong)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_efficientnet"])
def test_timm_decays_what_it_does_but_for_the_points(architecture: str) -> None:
    """What a model's `no_weight_decay` names stays without decay, also where the model is a part."""
    timm = pytest.importorskip("timm")
    optimizers = pytest.importorskip("timm.optim")
    from pwlu_ext.tests.networks import replace_activations

    model = timm.create_model(architecture, num_classes=5)
    size = model.default_cfg["input_size"]
    replace_activations(model, input_size=size)
    of_timm = decays(model, optimizers.create_optimizer_v2(model, "adamw", lr=0.1, weight_decay=DECAY))
    grouped = {
        "param_group_fn": optimizers.create_optimizer_v2(
            model, "adamw", lr=0.1, param_group_fn=lambda m: parameter_groups(m, weight_decay=DECAY)
        ),
        "groups": optimizers.create_optimizer_v2(
            parameter_groups(nn.Sequential(model), weight_decay=DECAY), "adamw", lr=0.1, weight_decay=0.5
        ),
    }
    for optimizer in grouped.values():
        differing = {name for name, decay in decays(model, optimizer).items() if decay != of_timm[name]}
        assert differing == {name for name in of_timm if name.endswith(".points")}


def test_timm_muon_leaves_the_points_to_adamw() -> None:
    optimizers = pytest.importorskip("timm.optim")
    model = network()
    groups = parameter_groups(model, weight_decay=DECAY)
    optimizer = optimizers.create_optimizer_v2(groups, "muon", lr=0.01)
    model(torch.randn(2, 3, 2, 2)).sum().backward()
    optimizer.step()
    by_muon = {id(parameter) for parameter, state in optimizer.state.items() if state["use_muon"]}
    assert id(model[8].weight) in by_muon
    assert by_muon <= {id(model[0].weight), id(model[8].weight)}


def test_timm_layer_decay_by_names() -> None:
    """The manual's other way: a pattern for timm's own grouping."""
    optimizers = pytest.importorskip("timm.optim")
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), PWLU(4)), nn.Sequential(nn.Linear(4, 2)))
    groups = optimizers.param_groups_layer_decay(
        model, weight_decay=DECAY, layer_decay=0.5, no_weight_decay_list=["*.points"]
    )
    assert decayed(model, torch.optim.SGD(groups, lr=0.1)) == {"0.0.weight", "1.0.weight"}

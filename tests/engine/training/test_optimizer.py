import pytest
import torch
from torch import nn

from engine.training.optimizer import build_sgd, parameter_groups, set_learning_rate
from models import FReLU, activation_factory, build_classifier, is_activation
from pwlu import PWLU

SETTINGS = {
    "weight_decay": 0.1,
    "norm_and_bias_weight_decay": 0.2,
    "activation_weight_decay": 0.3,
    "activation_lr_multiplier": 5.0,
}


def names_by_group(model: nn.Module) -> dict[str, set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, is_activation=is_activation, **SETTINGS)
    return {group["name"]: {names[parameter] for parameter in group["params"]} for group in groups}


def test_groups_follow_the_kind_of_module() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        PWLU(4),
        nn.LayerNorm([4, 5, 5]),  # its weight has three dimensions
        FReLU(4),  # holds a convolution and a normalisation
        nn.PReLU(4),
        nn.Linear(4, 2),
    )
    groups = names_by_group(model)
    assert groups["weights"] == {"0.weight", "6.weight"}
    assert groups["norm_and_bias"] == {"0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "6.bias"}
    pwlu = {f"2.{name}" for name in ("left", "right", "points", "left_slope", "right_slope")}
    frelu = {f"4.{name}" for name, _ in FReLU(4).named_parameters()}
    assert groups["activation"] == pwlu | frelu | {"5.weight"}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_every_parameter_of_a_network_exactly_once(name: str) -> None:
    model, _ = build_classifier(name, activation_factory("pwlu"), num_classes=3, input_size=(3, 32, 32))
    groups = parameter_groups(model, is_activation=is_activation, **SETTINGS)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(model.parameters())
    weights = next(group["params"] for group in groups if group["name"] == "weights")
    assert all(parameter.ndim in (2, 4) for parameter in weights)


def test_a_shared_parameter_is_counted_once() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    groups = parameter_groups(nn.Sequential(first, second), is_activation=is_activation, **SETTINGS)
    assert [len(group["params"]) for group in groups] == [1, 2]


def test_sgd_uses_each_groups_decay_and_learning_rate() -> None:
    """With gradients of zero one step multiplies a parameter by 1 - lr * decay."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), PWLU(2))
    optimizer = build_sgd(model, is_activation=is_activation, momentum=0.9, nesterov=False, **SETTINGS)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    set_learning_rate(optimizer, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.5 * 0.1))
    torch.testing.assert_close(after["1.weight"], before["1.weight"] * (1 - 0.5 * 0.2))
    torch.testing.assert_close(after["2.points"], before["2.points"] * (1 - 0.5 * 5.0 * 0.3))


def test_empty_groups_are_left_out() -> None:
    groups = parameter_groups(nn.Linear(2, 2, bias=False), is_activation=is_activation, **SETTINGS)
    assert [group["name"] for group in groups] == ["weights"]

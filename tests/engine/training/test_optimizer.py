import pytest
import torch
from torch import nn

from engine.training.optimizer import (
    OptimizerOptions,
    build_sgd,
    load_optimizer,
    parameter_groups,
    set_learning_rate,
    step_unless,
)
from models import FReLU, activation_factory, build_classifier, is_activation
from pwlu import PWLU

OPTIONS = OptimizerOptions(
    peak_lr=1.0,
    weight_decay=0.1,
    norm_and_bias_weight_decay=0.2,
    activation_weight_decay=0.3,
    activation_lr_multiplier=5.0,
)


def names_by_group(model: nn.Module) -> dict[str, set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, OPTIONS, is_activation)
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
    pwlu = {f"2.{name}" for name in ("left", "right", "points", "left_slope", "right_slope")}
    frelu = {f"4.{name}" for name, _ in FReLU(4).named_parameters()}
    assert names_by_group(model) == {
        "weights": {"0.weight", "6.weight"},
        "norm_and_bias": {"0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "6.bias"},
        "activation": pwlu | frelu | {"5.weight"},
    }
    assert names_by_group(nn.Linear(2, 2, bias=False)) == {"weights": {"weight"}}  # no empty groups


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_every_parameter_of_a_network_exactly_once(name: str) -> None:
    model, _ = build_classifier(name, activation_factory("pwlu"), num_classes=3, input_size=(3, 32, 32))
    model.fc_twin = nn.Linear(4, 4)
    model.fc_twin.bias = next(module for module in model.modules() if isinstance(module, nn.Linear)).bias
    groups = parameter_groups(model, OPTIONS, is_activation)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))  # a shared one too
    assert set(grouped) == set(model.parameters())
    assert all(parameter.ndim in (2, 4) for parameter in groups[0]["params"])


def test_sgd_uses_each_groups_decay_and_learning_rate() -> None:
    """With gradients of zero one step multiplies a parameter by 1 - lr * decay."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), PWLU(2))
    optimizer = build_sgd(model, OPTIONS, is_activation)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    set_learning_rate(optimizer, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.5 * 0.1))
    torch.testing.assert_close(after["1.weight"], before["1.weight"] * (1 - 0.5 * 0.2))
    torch.testing.assert_close(after["2.points"], before["2.points"] * (1 - 0.5 * 5.0 * 0.3))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, skipped: set[int], steps: int = 6) -> None:
    """Take steps with gradients of 1, 2, 3 ..., NaN in those that are skipped."""
    off = torch.amp.GradScaler("cpu", enabled=False)
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan if step in skipped else step + 1.0)
        step_unless(torch.tensor(float(step in skipped)), optimizer, off)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("skipped", [set(), {0}, {0, 1}, {2, 4}], ids=str)
def test_steps_are_those_of_sgd_and_those_to_skip_are_none(skipped: set[int], momentum: float) -> None:
    options = OptimizerOptions(peak_lr=1.0, weight_decay=0.1, momentum=momentum)
    ours, plain = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    plain.load_state_dict(ours.state_dict())
    optimizer = build_sgd(ours, options, is_activation)
    set_learning_rate(optimizer, 0.1)
    trained(ours, optimizer, skipped)
    groups = parameter_groups(plain, options, is_activation)
    reference = torch.optim.SGD(groups, lr=0.1, momentum=momentum, foreach=False, fused=False)
    for step in sorted(set(range(6)) - skipped):
        for parameter in plain.parameters():
            parameter.grad = torch.full_like(parameter, step + 1.0)
        reference.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("saved", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("now", [torch.contiguous_format, torch.channels_last])
def test_a_checkpoint_goes_on_in_another_memory_layout(
    saved: torch.memory_format, now: torch.memory_format
) -> None:
    weight, moved = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)), []
    for then in (saved, now):
        state = None
        model = nn.Conv2d(3, 4, 5, bias=False)
        model.weight.data.copy_(weight)
        for layout in (saved, then):
            model.to(memory_format=layout)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
            if state is not None:
                load_optimizer(optimizer, state)
            model.weight.grad = weight.sin().contiguous(memory_format=layout)
            optimizer.step()
            state = optimizer.state_dict()
        moved.append(model.weight.detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=1e-6)


def test_a_checkpoint_of_sgd_that_was_not_fused_goes_on() -> None:
    model = nn.Linear(3, 2)
    before = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    before.step()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    load_optimizer(optimizer, before.state_dict())
    buffer = before.state[model.weight]["momentum_buffer"]
    assert torch.equal(optimizer.state[model.weight]["momentum_buffer"], buffer)
    trained(model, optimizer, {0}, steps=2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())

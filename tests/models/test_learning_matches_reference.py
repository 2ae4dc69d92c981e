"""A network that learns with the compiled operator learns what it would with the plain one, step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pwlu.module
from models import activation_factory, build_classifier
from pwlu import TwoPhaseLearning, pwlu_reference

STEPS, PHASE1_STEPS = 12, 4


def train(mode: str, init: str) -> tuple[nn.Module, list[float]]:
    """Train a quarter-width ResNet-18 in float64 through both phases; return it and the losses."""
    torch.manual_seed(0)
    make = activation_factory("pwlu", mode=mode, init=init)
    network, _ = build_classifier("resnet18_025", make, num_classes=5, input_size=(3, 32, 32))
    network.double().to(memory_format=torch.channels_last)
    learning = TwoPhaseLearning(network, PHASE1_STEPS)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    images, labels = torch.randn(STEPS, 8, 3, 32, 32).double(), torch.randint(5, (STEPS, 8))
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        x = images[step].contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(x), labels[step])
        loss.backward()
        learning.before_optimizer_step()
        optimizer.step()
        learning.after_optimizer_step()
        losses.append(loss.item())
    return network, losses


@pytest.mark.parametrize(
    ("mode", "init"), [("channel", "relu"), ("layer", "relu"), ("channel", "leaky_relu"), ("layer", "silu")]
)
def test_training_with_the_operator_is_training_with_the_reference(
    mode: str, init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, losses = train(mode, init)
    monkeypatch.setattr(pwlu.module, "pwlu", pwlu_reference)
    expected, expected_losses = train(mode, init)
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    for (name, one), (_, other) in zip(
        network.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=name)
    # and it has learned: its points are not those of its start on the present boundaries
    sites = [module for module in network.modules() if isinstance(module, pwlu.PWLU)]
    moved = [site.points - site.start_parameters(site.left, site.right)[0] for site in sites]
    assert all(distance.abs().max() > 1e-4 for distance in moved)

"""A network that learns with the compiled operator learns what it would with the plain one, step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pwlu.module
from models import activation_factory, build_classifier
from pwlu import TwoPhaseLearning, pwlu_reference

STEPS, PHASE1_STEPS = 12, 4


def train(mode: str) -> tuple[nn.Module, list[float]]:
    """Train a quarter-width ResNet-18 in float64 through both phases; return it and the losses."""
    torch.manual_seed(0)
    network, _ = build_classifier(
        "resnet18_025", activation_factory("pwlu", mode=mode), num_classes=5, input_size=(3, 32, 32)
    )
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


@pytest.mark.parametrize("mode", ["channel", "layer"])
def test_training_with_the_operator_is_training_with_the_reference(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, losses = train(mode)
    monkeypatch.setattr(pwlu.module, "pwlu", pwlu_reference)
    expected, expected_losses = train(mode)
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    for (name, one), (_, other) in zip(
        network.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=name)
    # and it has learned: ReLU bends in at most two of its corners
    corners = [
        m.points.detach().diff(dim=1).diff(dim=1).abs() > 1e-4
        for m in network.modules()
        if isinstance(m, pwlu.PWLU)
    ]
    assert any(bent.sum(1).min() > 2 for bent in corners)

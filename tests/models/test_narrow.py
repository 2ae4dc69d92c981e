"""The narrow networks for studies on a CPU."""

import pytest
import timm
import torch
from timm.layers import make_divisible


def test_resnet18_025_has_a_quarter_of_the_channels_of_resnet18() -> None:
    narrow, full = timm.create_model("resnet18_025", num_classes=10), timm.create_model("resnet18")
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        wide = dict(getattr(full, stage).named_parameters())
        for name, parameter in getattr(narrow, stage).named_parameters():
            if "downsample" not in name:
                assert 4 * parameter.shape[0] == wide[name].shape[0], (stage, name)
    assert 0.65e6 < sum(parameter.numel() for parameter in narrow.parameters()) < 0.75e6
    assert narrow(torch.zeros(2, 3, 48, 48)).shape == (2, 10)


def test_efficientnet_b0_025_has_a_quarter_of_the_channels_in_multiples_of_8() -> None:
    narrow, full = timm.create_model("efficientnet_b0_025"), timm.create_model("efficientnet_b0")
    widths = [
        [stage[0].conv_pw.in_channels for stage in network.blocks[1:]] for network in (narrow, full)
    ]  # what the first block of every stage but the first takes
    assert widths == [[8, 8, 16, 24, 32, 48], [16, 24, 40, 80, 112, 192]]
    assert widths[0] == [make_divisible(whole / 4, 8) for whole in widths[1]]
    assert narrow(torch.zeros(2, 3, 48, 48)).shape == (2, 1000)


@pytest.mark.parametrize("name", ["resnet18_025", "efficientnet_b0_025"])
def test_there_are_no_trained_weights(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no trained weights"):
        timm.create_model(name, pretrained=True)

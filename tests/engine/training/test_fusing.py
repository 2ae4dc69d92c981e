import timm
from torch import nn

from engine.training.fusing import fuse
from pwlu import PWLU, replace_activations

SIZE = (3, 32, 32)


def test_what_came_of_it_is_a_sentence() -> None:
    model = timm.create_model("resnet18")
    assert fuse(model, SIZE) == ""  # there is no PWLU
    replace_activations(model, input_size=(3, 64, 64))
    assert fuse(model, SIZE) == "17 of 17 PWLUs fused with the BatchNorm before them"


def test_a_network_without_any_goes_on() -> None:
    told = fuse(nn.Sequential(nn.Conv2d(3, 4, 3), PWLU(4)), SIZE)
    assert told == "runtime.fuse_batch_norm: no BatchNorm of Sequential can be fused"

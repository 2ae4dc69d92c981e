"""Where a site's channels are: in dimension 1, or last as in transformers and ConvNeXt."""

import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import mark
from torch import nn

from pwlu import replace_activations
from pwlu_ext.tests.networks import small


def test_a_gate_split_off_a_linear_layer_before_a_convolution_is_still_channels_last():
    with torch.device("meta"):
        model = timm.create_model("mambaout_femto", depths=(1, 1, 1, 1))
    report = replace_activations(model, input_size=(3, 64, 64))
    assert [site.spatial_size for site in report.sites[1:5]] == [(16, 16), (8, 8), (4, 4), (2, 2)]


class Net(nn.Module):
    """Layers on (batch, width, height, channels) or (batch, channels, height, width), each with a GELU."""

    def __init__(self, widths, channels_last):
        super().__init__()
        self.channels_last = channels_last
        pairs = list(zip((3, *widths), widths, strict=False))
        layer = nn.Linear if channels_last else (lambda a, b: nn.Conv2d(a, b, 1))
        self.layers = nn.ModuleList(nn.Sequential(layer(a, b), nn.GELU(), nn.Dropout(0.1)) for a, b in pairs)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        for layer in self.layers:
            x = layer(x)
            x = x + x
        return x


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    size=st.tuples(st.integers(1, 7), st.integers(2, 7)),
    channels_last=st.booleans(),
)
def test_channels_are_found_whatever_the_sizes(widths, size, channels_last):
    """Also where the channels are as many as a spatial dimension is long."""
    model = Net(widths, channels_last)
    report = replace_activations(model, input_size=(3, *size))
    assert [site.num_channels for site in report.sites] == widths
    assert {site.spatial_size for site in report.sites} == {size}
    assert {layer[1].channel_dim for layer in model.layers} == {-1 if channels_last else 1}
    assert model(torch.zeros(2, 3, *size)).shape[-1 if channels_last else 1] == widths[-1]


@mark.parametrize("size", [(4, 4), (4, 8)])
def test_a_view_of_a_convolution_with_as_many_tokens_as_channels(size):
    """As in PVTv2's MLP: (batch, tokens, channels), of which the memory was written by a convolution."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 16, 1), nn.GELU()

        def forward(self, x):
            return self.act(self.conv(x).flatten(2).transpose(1, 2))

    model = Tokens()
    report = replace_activations(model, input_size=(3, *size))
    assert report.sites[0].num_channels == 16 and model.act.channel_dim == -1
    assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 36, 16)


def test_channel_dim_can_be_given():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    report = small(model, channel_dim=2)
    assert report.sites[0].num_channels == 6 and model[1].channel_dim == 2

"""What replacing leaves as it was, and its errors: each names the argument, and the model stays as it was."""

import torch
import torch.nn.functional as F
from pytest import mark, raises
from torch import nn

from pwlu import replace_activations
from pwlu_ext.tests.networks import conv_net, small


class Counter(nn.Module):
    """Writes to four buffers in every forward: in place, by assignment, and by F.batch_norm."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("mean", torch.ones(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x):
        x = F.batch_norm(x, self.mean, self.var, training=True)
        self.count += 1
        self.last = x.mean(dim=(1, 2, 3))
        return x


def test_flags_buffers_and_hooks_are_as_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), Counter(), nn.Dropout())
    model[1].eval()
    flags = [module.training for module in model]
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    small(model)
    assert [module.training for module in model] == flags
    for name, (buffer, value) in buffers.items():
        assert model.get_buffer(name) is buffer and torch.equal(buffer, value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_new_modules_take_device_and_flag_and_float64(dtype):
    model = conv_net(nn.ReLU()).to(dtype).eval()
    small(model)
    assert not model[1].training
    assert model[1].points.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    x = torch.randn(1, 3, 6, 7, dtype=dtype)
    torch.testing.assert_close(model(x), model[0](x).relu())
    model = conv_net(nn.ReLU()).to("meta")
    small(model)
    assert model[1].points.device.type == "meta"


@mark.parametrize("inplace", [True, False])
def test_new_modules_take_the_inplace_flag(inplace):
    model = conv_net(nn.ReLU(inplace=inplace), nn.GELU())
    small(model, make=lambda num_channels: nn.SiLU(inplace=True))
    assert (model[1].inplace, model[3].inplace) == (inplace, False)


@mark.parametrize(
    "options, words",
    [
        ({"input_size": (3, 32)}, r"forward of Sequential at input_size=\(3, 32\) failed"),
        ({"input_size": (4, 8, 8)}, r"input_size=\(4, 8, 8\) failed .*RuntimeError"),
        ({"input_size": ()}, r"input_size is \(\), expected the shape of one input"),
        ({"input_size": (3, 0, 4)}, r"input_size is \(3, 0, 4\)"),
        ({"input_size": 224}, "input_size is 224"),
        ({"make": "relu"}, "make is 'relu', expected a callable"),
        ({"make": lambda: nn.ReLU()}, r"make\(4\), as site '1' needs it, failed with TypeError"),
        ({"make": lambda num_channels: F.relu}, r"make\(4\) returned function, expected an nn.Module"),
        ({"min_positions": 0}, "min_positions is 0, expected an integer >= 1"),
        ({"channel_dim": 4}, "no channel dimension 4.*channel_dim=4"),
        ({"min_positions": 43}, r"(?s)nothing was replaced in Sequential.*1 +ReLU +4 +6x7 +kept: tiny map"),
    ],
)
def test_errors_name_the_argument_and_change_nothing(options, words):
    model = conv_net(nn.ReLU(), nn.PReLU())
    before = [*model]
    with raises(ValueError, match=words):
        replace_activations(model, **({"input_size": (3, 6, 7)} | options))
    assert all(a is b for a, b in zip(model, before, strict=True))
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_make_without_channel_dim_is_told_so():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU())
    with raises(ValueError, match=r"make\(4, channel_dim=-1\), as site '1' needs it.*channel_dim"):
        replace_activations(model, input_size=(6, 7, 3), make=nn.PReLU)
    assert isinstance(model[1], nn.GELU)


def test_nothing_to_replace_is_an_error():
    with raises(ValueError, match="nothing to replace: Sequential has no activation site.*is_activation"):
        small(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()))


def test_an_activation_itself_is_an_error():
    with raises(ValueError, match=r"model is itself an activation \(ReLU\).*nn.Sequential"):
        small(nn.ReLU())


def test_a_wrapped_model_is_an_error():
    wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    with raises(ValueError, match="DistributedDataParallel"):
        small(wrapped)

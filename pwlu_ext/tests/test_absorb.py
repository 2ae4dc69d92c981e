"""BatchNorms made part of a PWLU's tables: the numbers, and which BatchNorms can be absorbed."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, nn

from pwlu import PWLU, FoldedPWLU, fold, replace_activations
from pwlu_ext.tests.helpers import bent_module

Norm = nn.modules.batchnorm._BatchNorm


def without_bias(norm: Norm) -> Norm:
    norm.register_parameter("bias", None)
    return norm


def used(norm: Norm) -> Norm:
    """The BatchNorm with statistics of its own and an affine of either sign."""
    generator = torch.Generator().manual_seed(7)
    channels = norm.num_features
    with torch.no_grad():
        if norm.running_mean is not None:
            norm.running_mean.copy_(torch.randn(channels, generator=generator))
            norm.running_var.copy_(0.2 + torch.rand(channels, generator=generator))
        if norm.affine:
            norm.weight.copy_(torch.randn(channels, generator=generator))
            norm.weight[::2].abs_().neg_()
            if norm.bias is not None:
                norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


def assert_absorbs(model: nn.Module, shape: tuple[int, ...], tolerance: float = 1e-12) -> nn.Module:
    """Folded with its BatchNorms absorbed, `model` computes the same in float64; returns the folded model."""
    model = model.double().eval()
    folded = fold(model, absorb_batch_norm=True, input_size=shape)
    x = 3 * torch.randn((64, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=tolerance, atol=tolerance)
    return folded


# The numbers


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm1d(4, affine=False), (4, 6)),
        (nn.BatchNorm2d(4), (4, 3, 4)),
        (without_bias(nn.BatchNorm2d(4)), (4, 3, 4)),
        (nn.BatchNorm3d(4, eps=0.1), (4, 2, 3, 2)),
        (nn.SyncBatchNorm(4), (4, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_absorbed_equals_separate(groups: int, norm: Norm, shape: tuple[int, ...]) -> None:
    model = nn.Sequential(used(copy.deepcopy(norm)), bent_module(groups, 5))
    folded = assert_absorbs(model, shape)
    assert type(folded[0]) is nn.Identity and type(folded[1]) is FoldedPWLU
    assert folded[1].slopes.shape == (4, 7) and folded[1].channel_dim == 1
    assert not norm.affine or (folded[1].interval < 0).sum() >= 2


@pytest.mark.parametrize("width", [0.0, -1.0])
def test_collapsed_functions(width: float) -> None:
    """They jump: on the other side of the boundary where the scale is negative."""
    module = bent_module(4, 5)
    with torch.no_grad():
        module.right.copy_(module.left + width)
    norm = used(nn.BatchNorm1d(4))
    model = nn.Sequential(norm, module).double().eval()
    folded = assert_absorbs(model, (4,))
    boundary = folded[1].left.detach()
    for step in (-1e-9, 1e-9):
        torch.testing.assert_close(folded(boundary[None] + step), model(boundary[None] + step))


@pytest.mark.parametrize("weight", [0.0, 1e-40, -1e-40])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_scale_of_nearly_nothing(weight: float, groups: int) -> None:
    """Boundaries divided by it would be no float32; the function is a constant, in every part of it."""
    norm = nn.BatchNorm1d(4)
    with torch.no_grad():
        norm.weight.fill_(weight)
        norm.bias.copy_(torch.tensor([-9.0, -0.4, 0.3, 9.0]))
    model = nn.Sequential(norm, bent_module(groups, 5)).eval()
    folded = fold(model, absorb_batch_norm=True, input_size=(4,))
    x = torch.tensor([[-1e6], [0.0], [1.0], [1e6]]).expand(4, 4)
    torch.testing.assert_close(folded(x), model(x))
    assert all(buffer.isfinite().all() for buffer in folded[1].buffers())


def test_statistics_that_are_no_numbers_are_an_error() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), bent_module(4))
    model[0].running_var[2] = torch.nan
    with pytest.raises(
        ValueError, match="PWLU '1' cannot be folded: .* an absorbed BatchNorm's, are not finite"
    ):
        fold(model, absorb_batch_norm=True, input_size=(4,))


@pytest.mark.parametrize("kind", [BatchNormAct2d, SyncBatchNormAct])
def test_timm_norms_that_call_their_activation(kind: type[Norm]) -> None:
    norm = used(kind(4))
    norm.act, norm.drop = bent_module(4, 5), nn.Identity()
    for model in (nn.Sequential(nn.Conv2d(2, 4, 1), norm), nn.Sequential(nn.Conv2d(2, 4, 1), norm)[1]):
        folded = assert_absorbs(model, (2, 3, 3) if isinstance(model, nn.Sequential) else (4, 3, 3))
        assert not any(isinstance(module, Norm) for module in folded.modules())
        assert sum(isinstance(module, FoldedPWLU) for module in folded.modules()) == 1


# Which can be absorbed


class Blocks(nn.Module):
    """What `flow` makes of two BatchNorms (a, b), two PWLUs (p, q) and a layer (f)."""

    def __init__(self, flow: Callable[["Blocks", Tensor], object]) -> None:
        super().__init__()
        # registered so that neither names nor order tell what belongs to what
        self.q, self.b, self.f = bent_module(4, 5), used(nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1)
        self.p, self.a = bent_module(4, 3), used(nn.BatchNorm2d(4))
        self.flow = flow

    def forward(self, x: Tensor) -> object:
        return self.flow(self, x)


def without_gradients(m: Blocks, x: Tensor) -> Tensor:
    with torch.no_grad():
        return m.p(m.a(x))


def with_gradients(m: Blocks, x: Tensor) -> Tensor:
    """A part of the exported program of its own."""
    with torch.enable_grad():
        h = m.p(m.f(x))
    return h + m.p(m.a(x))


@pytest.mark.parametrize(
    ("flow", "absorbed"),
    [
        (lambda m, x: m.q(m.b(m.p(m.a(x)))), {"p": "a", "q": "b"}),
        (lambda m, x: m.p(m.b(m.q(m.a(x)))), {"p": "b", "q": "a"}),
        (lambda m, x: m.p(m.a(m.p(m.a(x)))) + m.q(m.f(x)), {"p": "a"}),  # called twice
        (lambda m, x: m.f(m.p(h := m.a(x)) + m.p(h)) + m.q(x), {"p": "a"}),
        (lambda m, x: m.q(m.f(m.b(m.f(m.p(m.a(x))))) + x), {"p": "a"}),  # a residual block
        (lambda m, x: m.p(m.a(x)) + m.f(x).relu_() + m.q(x), {"p": "a"}),
        (without_gradients, {"p": "a"}),
    ],
)
def test_follows_the_data(flow: Callable[[Blocks, Tensor], Tensor], absorbed: dict[str, str]) -> None:
    folded = assert_absorbs(Blocks(flow), (4, 3, 3))
    report = folded.fold_report
    assert {feed.pwlu: feed.norm for feed in report.feeds if feed.norm} == absorbed
    for name in ("a", "b"):
        assert type(folded.get_submodule(name)) is (
            nn.Identity if name in absorbed.values() else nn.BatchNorm2d
        )
    assert all(bool(feed.reason) == (feed.norm is None) for feed in report.feeds)


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (lambda m, x: m.p(m.f(m.a(x))), "p  nothing absorbed: its input is made by aten.conv2d"),
        (lambda m, x: m.p(x), "p  nothing absorbed: its input is made by x"),
        (lambda m, x: m.p(m.a(x)) + m.p(m.b(x)), "its inputs are made by 2 different BatchNorms"),
        (lambda m, x: m.p(m.a(x)) + m.p(x), "its input is made by x"),
        (lambda m, x: m.p(h := m.a(x)) + h, "also goes to aten.add.Tensor"),
        (lambda m, x: (m.p(h := m.a(x)), h), "also goes to output"),
        (lambda m, x: m.p(m.a(x)) + m.f(m.a(x)), "also goes to aten.conv2d.default"),
        (lambda m, x: m.p(h := m.a(x)) + m.q(h), "also goes to pwlu.forward.default"),
        (lambda m, x: m.p(m.a(x).relu()), "its input is made by aten.relu.default"),
        (lambda m, x: m.p(m.a(x).add_(1)), "its input is made by aten.add_.Tensor"),
        (lambda m, x: (h := m.a(x), F.relu_(x), m.p(h))[2], "something is written in place between"),
        (lambda m, x: m.p(m.a(x).transpose(1, 2)), "its input is made by aten.transpose.int"),
        (with_gradients, "p  nothing absorbed: its input is made by aten.conv2d.default"),
        (lambda m, x: m.f(x), "p  nothing absorbed: it never ran"),
    ],
)
def test_keeps_what_it_cannot_absorb(flow: Callable[[Blocks, Tensor], object], reason: str) -> None:
    model = Blocks(flow)
    with pytest.raises(ValueError, match="no BatchNorm of Blocks can be absorbed:") as error:
        fold(model, absorb_batch_norm=True, input_size=(4, 4, 4))
    assert reason in str(error.value)
    assert type(model.a) is nn.BatchNorm2d and type(model.p) is PWLU


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def other_channels() -> nn.Module:
    module = bent_module(4, 5)
    module.channel_dim = -1
    return nn.Sequential(nn.BatchNorm2d(4), module)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), bent_module(4)),
            "the BatchNorm before it uses the statistics of the batch itself",
        ),
        (nn.Sequential(Doubled(4), bent_module(4)), "made by a Doubled, which may do more than normalise"),
        (other_channels(), "its channels are in another dimension"),
    ],
)
def test_keeps_norms_of_another_kind(model: nn.Module, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fold(model, absorb_batch_norm=True, input_size=(4, 4, 4))


@pytest.mark.parametrize("input_size", [(3, 4, 4), (), 224])
def test_a_model_that_does_not_run_is_an_error(input_size: object) -> None:
    model = Blocks(lambda m, x: m.p(m.a(m.f(x))))
    with pytest.raises(ValueError, match="torch.export, which failed at input_size=.*check input_size"):
        fold(model, absorb_batch_norm=True, input_size=input_size)


# The copy


def test_the_model_stays_as_it_was_and_its_twin_takes_the_state() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3)
    replace_activations(model, input_size=(3, 32, 32))
    model.act1.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, absorb_batch_norm=True, input_size=(3, 32, 32))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in folded.modules())

    other = timm.create_model("resnet10t", num_classes=3)
    replace_activations(other, input_size=(3, 32, 32))
    twin = fold(other, absorb_batch_norm=True, input_size=(3, 32, 32))
    twin.load_state_dict(folded.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(twin(x), folded(x))

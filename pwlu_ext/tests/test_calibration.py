"""`calibrate`: boundaries from forward passes without training, and nothing else that changes."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pwlu import PWLU, StartingFunction, TwoPhaseLearning, calibrate, fold, replace_activations
from pwlu_ext.tests.networks import pwlus


def network(**options: Any) -> nn.Sequential:
    """Three sites, one of them called twice, a BatchNorm and dropout."""
    torch.manual_seed(0)
    act = PWLU(5, init="silu")
    convolutions = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 5, 3)
    head = nn.Dropout(), nn.Flatten(), nn.Linear(5 * 9, 6)
    body = convolutions[0], nn.BatchNorm2d(4), PWLU(4, init="hardswish", **options), convolutions[1], act
    return nn.Sequential(*body, convolutions[2], act, PWLU(1, 8, init=F.softsign), *head)


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [2 * torch.randn(size, 3, 7, 7, generator=generator) + 0.3 * i for i, size in enumerate(sizes)]


def as_started(model: nn.Module) -> nn.Module:
    """The model with the functions of torch that its PWLUs start as."""
    functions = {2: nn.Hardswish(), 4: nn.SiLU(), 6: nn.SiLU(), 7: nn.Softsign()}
    return nn.Sequential(*(functions.get(i, module) for i, module in enumerate(model))).double().eval()


def inputs_of_sites(model: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """What reaches every site, flat per function, of the network that was there."""
    inputs: dict[int, Tensor] = {}
    for i, module in enumerate(as_started(copy.deepcopy(model))):
        if i in (2, 4, 6):
            found = x.transpose(0, 1).flatten(1)
            inputs[min(i, 4)] = torch.cat([inputs[4], found], 1) if i == 6 else found
        elif i == 7:
            inputs[i] = x.reshape(1, -1)
        x = module(x)
    return inputs


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_as_it_was(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(
        value.allclose(before[name], 0, 0, equal_nan=True) for name, value in model.state_dict().items()
    )


# What it does


@pytest.mark.parametrize(
    "wrap", [nn.Identity, nn.DataParallel, torch.compile], ids=["plain", "parallel", "compiled"]
)
def test_boundaries_are_those_of_all_batches_together(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Against float64 and the functions of torch, over batches of unequal sizes."""
    model = network()
    found = inputs_of_sites(model, torch.cat(batches(4, 1, 3)).double())
    wrapped = model if wrap is nn.Identity else wrap(model)
    report = calibrate(wrapped, [(x, 0) for x in batches(4, 1, 3)])
    assert report.num_batches == 3 and [site.name for site in report.sites] == ["2", "4", "7"]
    starts = {2: F.hardswish, 4: F.silu, 7: F.softsign}
    for (i, inputs), site in zip(found.items(), report.sites, strict=True):
        mean, std = inputs.mean(1), inputs.std(1, correction=0)
        left, right = mean - 3 * std, mean + 3 * std
        module = model[i]
        expected = {"left": left, "right": right, "running_mean": mean, "running_std": std}
        for name, value in expected.items():
            torch.testing.assert_close(getattr(module, name).double(), value, rtol=1e-4, atol=1e-5)
        knots = (
            left[:, None]
            + torch.arange(module.num_intervals + 1) * (right - left)[:, None] / module.num_intervals
        )
        torch.testing.assert_close(module.points.double(), starts[i](knots), rtol=1e-4, atol=1e-5)
        assert site.left == pytest.approx((left.min().item(), left.max().item()), rel=1e-4)
        assert site.right == pytest.approx((right.min().item(), right.max().item()), rel=1e-4)
        between = torch.stack([torch.linspace(a, b, 4001) for a, b in zip(left, right, strict=True)])
        gap = (module(between[:, :, None].movedim(0, 1)) - starts[i](between[:, :, None].movedim(0, 1))).abs()
        gap = gap.amax((0, 2)) / std
        assert site.gap == pytest.approx(gap.max().item(), rel=0.07)


@pytest.mark.parametrize("training", [True, False])
def test_the_largest_change_is_measured_on_the_first_batch(training: bool) -> None:
    model = network().train(training)
    first, second = batches(4, 3)
    before = as_started(copy.deepcopy(model))(first.double())
    report = calibrate(model, iter([first, second]))
    assert model.training == training
    model.eval()
    assert report.largest_change == pytest.approx((model(first) - before).abs().max().item(), rel=1e-3)
    assert report.largest_output == pytest.approx(before.abs().max().item(), rel=1e-4)
    assert f"{report.largest_change:.3g}" in report.summary()
    # what is left is the gap between the knots: much smaller with finer ones
    finer = network(num_intervals=512)
    assert calibrate(finer, [first]).sites[0].gap < 0.002 < report.sites[0].gap


def test_the_change_within_the_boundaries_is_bounded_by_the_gap() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(PWLU(3, init="silu"))
    x = torch.randn(64, 3, 9) * torch.tensor([0.1, 1, 20])[:, None]
    report = calibrate(model, [x])
    inside = (x >= model[0].left[:, None]) & (x <= model[0].right[:, None])
    change = ((model(x) - F.silu(x)).abs() * inside).amax((0, 2))
    bound = model[0].start_gap() * model[0].running_std
    assert (change <= 1.01 * bound + 1e-6).all() and report.sites[0].gap == model[0].start_gap().max()


def test_nothing_else_changes() -> None:
    model = network()
    model[1].eval()
    model[0].weight.grad = gradient = torch.ones_like(model[0].weight)
    flags, before = [module.training for module in model.modules()], state(model)
    tensors = {name: value.data_ptr() for name, value in model.state_dict().items()}
    images = TensorDataset(torch.cat(batches(4, 4)), torch.zeros(8))
    generator = torch.get_rng_state()
    calibrate(model, DataLoader(images, batch_size=2, shuffle=True))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in model.modules()] == flags
    assert model[0].weight.grad is gradient and all(p.requires_grad for p in model.parameters())
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == tensors
    changed = {
        name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])
    }
    assert changed == {"2", "4", "6", "7"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.train()(images[:4][0]).sum().backward()  # phase II: everything learns
    assert all(site.points.grad.abs().sum() > 0 for site in pwlus(model))


def test_again_with_other_batches() -> None:
    """As if it had been the first time; also after a checkpoint was loaded."""
    once, twice = network(), network()
    calibrate(twice, batches(5))
    loaded = network()
    loaded.load_state_dict(twice.state_dict())
    for model in (once, twice, loaded):
        calibrate(model, [batches(3, 4)[1]])
    assert is_as_it_was(twice, state(once)) and is_as_it_was(loaded, state(once))


def test_a_trained_network_of_timm_keeps_its_predictions() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=5).train()
    x = torch.randn(16, 3, 32, 32)
    for _ in range(3):
        model(x)  # statistics of its BatchNorms
    before = model.eval()(x)
    replace_activations(model, input_size=(3, 32, 32), init="replaced")
    report = calibrate(model, x.split(4))
    after = model(x)
    assert torch.equal(after.argmax(1), before.argmax(1)) and str(report).count("silu") == len(report.sites)
    assert (after - before)[:4].abs().max().item() == pytest.approx(report.largest_change, rel=1e-4)
    torch.testing.assert_close(fold(model)(x), after, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_autocast_and_channels_last(memory_format: torch.memory_format) -> None:
    exact, model = network(), network().to(memory_format=memory_format)
    x = batches(8)[0]
    calibrate(exact, [x])
    with torch.autocast("cpu", torch.bfloat16):
        report = calibrate(model, [x.to(memory_format=memory_format)])
    assert report.largest_change < 0.2
    for site, other in zip(pwlus(model), pwlus(exact), strict=True):
        torch.testing.assert_close(site.left, other.left, rtol=0.03, atol=0.03)
        assert site.points.dtype == torch.float32


def test_inference_mode() -> None:
    model, plain = network(), network()
    with torch.inference_mode():
        calibrate(model, batches(4))
    calibrate(plain, batches(4))
    assert is_as_it_was(model, state(plain))
    model(batches(2)[0]).sum().backward()


def test_batches_of_another_kind() -> None:
    model, plain = network(), network()
    calibrate(plain, batches(4))
    report = calibrate(model, [{"x": x} for x in batches(4)], forward=lambda m, batch: {"y": [m(batch["x"])]})
    assert is_as_it_was(model, state(plain)) and report.largest_change > 0
    for nothing in (lambda y: y.argmax(1), lambda y: y[:0]):  # as of a detector that finds nothing
        report = calibrate(model, batches(4), forward=lambda m, x, pick=nothing: pick(m(x)))
        assert report.largest_change is None and "cannot be compared" in str(report)


def test_batches_and_outputs_that_the_network_writes_into() -> None:
    class Shifting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    class Reusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return memory[: len(x)].copy_(x)

    memory = torch.empty(16, 3)
    model = nn.Sequential(Shifting(), PWLU(3, 6, init="silu"), Reusing())
    x = torch.randn(16, 3)
    expected = F.silu(x + 1)
    report = calibrate(model, [x.clone(), x[:4] - 1])
    assert report.largest_change == pytest.approx((model(x.clone()) - expected).abs().max().item())


def test_a_site_without_input_stays_and_is_named() -> None:
    model = network()
    model.spare = nn.Sequential(PWLU(3, bound=2.0, init="gelu"))
    before = state(model)
    with pytest.warns(UserWarning, match=r"PWLU 'spare.0': no input .* stays as it was"):
        report = calibrate(model, batches(4), forward=lambda m, x: m[:11](x))
    assert [site.calibrated for site in report.sites] == [True, True, True, False]
    assert "calibrated 3 of 4 sites" in report.summary() and "no input" in str(report)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items() if n.startswith("spare"))


def test_a_channel_whose_input_never_varies_keeps_its_width() -> None:
    model = nn.Sequential(PWLU(2, bound=2.0, init="gelu"))
    x = torch.randn(8, 2)
    x[:, 1] = 5
    calibrate(model, [x])
    assert (model[0].left[1].item(), model[0].right[1].item()) == (3, 7)


# What it refuses: the model is as it was


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            raise RuntimeError("no batches of one")
        return x


def not_finite() -> Iterator[Tensor]:
    yield from batches(4)
    yield torch.full((2, 3, 7, 7), torch.inf)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (list, ValueError, "no batch"),
        (lambda: iter(()), ValueError, "no batch"),
        (lambda: batches(4)[0], ValueError, "iterable of batches.*is a Tensor"),
        (lambda: TensorDataset(torch.zeros(3, 3)), ValueError, "data set.*DataLoader"),
        (lambda: [{"x": 1}], ValueError, "a batch must be a tensor.*is a dict.*forward="),
        (
            lambda: [([batches(4)[0]], 1)],
            ValueError,
            "a batch must be a tensor.*a tuple that begins with a list",
        ),
        (lambda: batches(4, 1), RuntimeError, "no batches of one"),
        (not_finite, ValueError, "PWLU '2', '4', '7': the input held a value that is not finite"),
    ],
)
def test_errors_leave_the_model_as_it_was(
    data: Callable[[], Any], error: type[Exception], words: str
) -> None:
    model = network()
    model.append(Failing())
    calibrate(model, batches(5))
    before, generator = state(model), torch.get_rng_state()
    with pytest.raises(error, match=words):
        calibrate(model, data())
    assert is_as_it_was(model, before) and all(m.training for m in model.modules())
    assert all(site.statistics is None for site in pwlus(model)) and generator.equal(torch.get_rng_state())


def test_an_error_of_a_late_site_leaves_the_early_ones_as_they_were() -> None:
    """A function that is finite where it started, but not everywhere."""
    model = nn.Sequential(
        PWLU(3, init="silu"), PWLU(3, init=StartingFunction("root", lambda x: (x + 4).sqrt()))
    )
    before = state(model)
    with pytest.raises(ValueError, match="root.*not finite"):
        calibrate(model, [50 * torch.rand(64, 3)])
    assert is_as_it_was(model, before)


def test_a_warning_that_is_an_error_leaves_the_model_as_it_was() -> None:
    model = network()
    model.spare = PWLU(3)
    before = state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="'spare'"):
            calibrate(model, batches(2), forward=lambda m, x: m[:11](x))
    assert is_as_it_was(model, before)


def test_a_model_that_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="Sequential has no PWLU.*replace_activations"):
        calibrate(nn.Sequential(nn.ReLU()), batches(2))
    with pytest.raises(ValueError, match="`forward` must be a callable.*is 'x'"):
        calibrate(network(), batches(2), forward="x")
    with pytest.raises(ValueError, match="`model` must be an nn.Module, but is a function"):
        calibrate(F.relu, batches(2))
    model = network()
    TwoPhaseLearning(model, 3)
    with pytest.raises(ValueError, match="'2', '4', '7': in phase I of a TwoPhaseLearning"):
        calibrate(model, batches(2))


@pytest.mark.parametrize("change", [0.01, torch.nan])
@pytest.mark.parametrize("name", ["points", "left_slope", "right_slope", "left", "right"])
def test_what_has_learned_is_not_thrown_away(name: str, change: float) -> None:
    model = network()
    calibrate(model, batches(4))
    getattr(model[4], name).data[1] += change
    before = state(model)
    with pytest.raises(ValueError, match="PWLU '4': has learned"):
        calibrate(model, batches(4))
    assert is_as_it_was(model, before)
    model[4].reset_parameters()
    calibrate(model, batches(4))

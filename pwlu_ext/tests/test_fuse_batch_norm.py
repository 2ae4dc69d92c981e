"""Networks whose BatchNorms are fused with the PWLUs behind them: what they compute, and keep, and report."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

from pwlu import PWLU, TwoPhaseLearning, calibrate, fold, fuse_batch_norm, replace_activations
from pwlu.fused.normalizing import Normalizing
from pwlu_ext.benchmarks.measure import kept_mib
from pwlu_ext.tests.fused_networks import SIZE, Block, assert_alike, block, fused_copy, images, step
from pwlu_ext.tests.helpers import bent_module, saved_whole

Norm = nn.modules.batchnorm._BatchNorm


def is_fused(model: nn.Module) -> bool:
    """Whether a BatchNorm leaves the normalising to a PWLU."""
    found = []
    for module in model.modules():
        if isinstance(module, PWLU):
            module.register_forward_pre_hook(lambda _, args: found.append(isinstance(args[0], Normalizing)))
    model(images())
    for module in model.modules():
        module._forward_pre_hooks.clear()
    return all(found)


# What they compute


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d,
        lambda n: nn.BatchNorm2d(n, momentum=None, eps=0.1),
        lambda n: nn.BatchNorm2d(n, affine=False),
        lambda n: nn.BatchNorm2d(n, track_running_stats=False),
        nn.SyncBatchNorm,
    ],
    ids=["plain", "cumulative", "no affine", "no running statistics", "synchronised"],
)
def test_training_and_evaluation(norm: Callable[[int], Norm], groups: int) -> None:
    apart = block(norm, groups)
    fused = fused_copy(apart)
    assert is_fused(copy.deepcopy(fused))
    for seed in range(3):
        assert_alike(step(fused, images(seed)), step(apart, images(seed)))
    apart.eval()
    fused.eval()
    assert_alike(step(fused, images()), step(apart, images()))
    with torch.inference_mode():
        torch.testing.assert_close(fused(images()), apart(images()))


def test_frozen_statistics_inside_training() -> None:
    apart = block()
    apart(images(7))
    fused = fused_copy(apart)
    for model in (apart, fused):
        for module in model.train().modules():
            if isinstance(module, Norm):
                module.eval()
    assert_alike(step(fused, images()), step(apart, images()))


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(dims: int) -> None:
    norm, shape = {1: (nn.BatchNorm1d, (4,)), 3: (nn.BatchNorm3d, (4, 2, 3, 2))}[dims]
    apart = nn.Sequential(norm(4), bent_module(4)).double()
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=shape)
    x = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_alike(step(fused, x), step(apart, x))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "efficientnet_b0"])
def test_every_pwlu_of_these_networks(name: str) -> None:
    torch.manual_seed(0)
    apart = timm.create_model(name, num_classes=5).double()
    replace_activations(apart, input_size=(3, 64, 64), init="leaky_relu")
    fused = copy.deepcopy(apart)
    report = fuse_batch_norm(fused, input_size=(3, 64, 64))
    assert all(site.norms for site in report.sites), report
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_alike(step(fused, x), step(apart, x), 1e-8)


def test_two_phases_of_training() -> None:
    """The same network after them, boundaries reset in between."""
    results = []
    for model in (block(), fused_copy(block())):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-3)
        TwoPhaseLearning(model, phase1_steps=5, optimizer=optimizer)
        for number in range(200):
            optimizer.zero_grad()
            for part in images(number, 6).split(3):
                model(part).square().mean().backward()
            optimizer.step()
        results.append(model.state_dict())
    assert_alike(results[1], results[0], 1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_autocast(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """As near to the exact results as apart, where z is rounded in between."""
    exact = block().train()
    expected = step(exact, images())
    errors = []
    for model in (block().float(), fused_copy(block()).float()):
        model.to(memory_format=memory_format)
        x = images().float().contiguous(memory_format=memory_format).requires_grad_()
        with torch.autocast("cpu", dtype):
            y = model(x)
        (y.float().square().sum()).backward()
        assert y.dtype == dtype
        error = {"y": (y - expected["y"]).abs().max().item()}
        for name, p in model.named_parameters():
            wanted = expected[f"gradient of {name}"]
            assert p.grad.dtype == torch.float32
            if wanted.norm() < 1e-9:
                continue  # of a bias before a BatchNorm: rounding and nothing else
            error[name] = ((p.grad - wanted).norm() / (1 + wanted.norm())).item()
        errors.append(error)
    for name, error in errors[1].items():
        assert error < 1.5 * errors[0][name] + 0.01, name


def test_functional_transforms() -> None:
    apart = block().eval()
    parameters = dict(apart.named_parameters())

    def loss(parameters: dict[str, Tensor], model: nn.Module) -> Tensor:
        return functional_call(model, parameters, (images(),)).square().sum()

    def of_each(model: nn.Module) -> Tensor:
        return vmap(lambda image: model(image[None]))(images())

    def along(model: nn.Module) -> Tensor:
        return jvp(model, (images(),), (images(1),))[1]

    fused = fused_copy(apart)
    assert_alike(grad(loss)(parameters, fused), grad(loss)(parameters, apart))
    for transformed in (of_each, along):
        torch.testing.assert_close(transformed(fused), transformed(apart))


def test_an_input_that_needs_no_gradient() -> None:
    """As behind a frozen part of the network."""
    results = []
    for model in (block(), fused_copy(block())):
        for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
            conv.requires_grad_(False)
        model(images()).square().sum().backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert_alike(results[1], results[0])


def test_a_parametrized_weight_learns() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), PWLU(3))
    fuse_batch_norm(model, input_size=(3, 4, 4))
    apart = nn.Sequential(nn.BatchNorm2d(3), PWLU(3))
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    gradients = []
    for network in (model, apart):
        nn.utils.parametrize.register_parametrization(network[0], "weight", nn.Softplus())
        network(x).square().sum().backward()
        gradients.append(network[0].parametrizations.weight.original.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    assert gradients[0].any()


def test_second_derivatives() -> None:
    results = []
    for model in (block(), fused_copy(block())):
        x = images().requires_grad_()
        (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        penalty = torch.autograd.grad(first.square().sum(), list(model.parameters()), allow_unused=True)
        results.append({str(i): torch.zeros(()) if g is None else g for i, g in enumerate(penalty)})
    assert_alike(results[1], results[0], 1e-8)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("phase", [1, 2])
def test_a_checkpointed_segment_moves_the_statistics_once(reentrant: bool, phase: int) -> None:
    apart, fused = block(), fused_copy(block())
    for model in (apart, fused):
        if phase == 1:
            TwoPhaseLearning(model, phase1_steps=5)
    expected, x = step(apart, images()), images().requires_grad_()
    checkpoint(fused, x, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close(x.grad, expected["gradient of x"])
    for name, buffer in fused.named_buffers():
        torch.testing.assert_close(buffer, expected[name], msg=name)


class Segments(nn.Module):
    """What comes before the PWLU is checkpointed."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.act, self.reentrant = bent_module(4), reentrant

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.act(self.first(x))
        return self.act(checkpoint(self.first, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_segment_that_ends_with_the_batch_norm(reentrant: bool) -> None:
    """Its output leaves the segment. With reentrant checkpoints both run apart."""
    torch.manual_seed(0)
    apart = Segments(reentrant).double()
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=SIZE)
    results = []
    for model in (apart, fused):
        x = images().requires_grad_()
        model(x).square().sum().backward()
        results.append({name: p.grad for name, p in model.named_parameters()} | {"x": x.grad})
    assert_alike(results[1], results[0])


class LaterSegment(Segments):
    """What comes after the BatchNorm is."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return checkpoint(self.act, z, use_reentrant=self.reentrant) if self.training else self.act(z)


def test_a_checkpointed_segment_that_begins_with_the_pwlu() -> None:
    torch.manual_seed(0)
    apart = LaterSegment(reentrant=False).double()
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=SIZE)
    assert_alike(step(fused, images()), step(apart, images()))
    fused.reentrant = True
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        fused(images())


def test_a_batch_norm_that_does_not_count_its_batches() -> None:
    for momentum in (0.1, None):
        apart = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum), bent_module(3)).double()
        apart[0].num_batches_tracked = None
        assert_alike(step(fused_copy(apart), images()), step(apart, images()))


def test_compiled_after_an_evaluation_that_is_not() -> None:
    """Still as one operator: nothing of the evaluation is left."""
    torch._dynamo.reset()
    model = fused_copy(block())
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(str(graph.graph))
        return graph.forward

    with torch.no_grad():
        model.eval()(images())
    torch.compile(model.train(), backend=backend)(images())
    assert graphs and not any("batch_norm" in graph for graph in graphs)


def test_without_autograd_around_the_batch_norm_it_gets_no_gradient() -> None:
    torch.manual_seed(0)
    apart = nn.Sequential(nn.BatchNorm2d(3), bent_module(3)).double()
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=SIZE)
    for model in (apart, fused):
        for mode in (True, False):
            model.train(mode)
            with torch.no_grad():
                z = model[0](images())
            model[1](z).square().sum().backward()
        assert model[0].weight.grad is None
    torch.testing.assert_close(fused[1].points.grad, apart[1].points.grad)


def test_an_evaluation_before_the_backward_pass() -> None:
    """Its running statistics have moved by then; torch's own BatchNorm would take the new ones."""
    expected: dict[str, Tensor] = {}
    for training in (False, True):
        apart = block().train(training)
        apart(images(2 if training else 1)).square().sum().backward()
        for name, p in apart.named_parameters():
            expected[name] = expected.get(name, 0) + p.grad
    fused = fused_copy(block())
    evaluated = fused.eval()(images(1)).square().sum()
    (evaluated + fused.train()(images(2)).square().sum()).backward()
    assert_alike({name: p.grad for name, p in fused.named_parameters()}, expected)


def test_compiled_in_one_graph() -> None:
    torch._dynamo.reset()
    apart, fused = block(), fused_copy(block())
    compiled = torch.compile(fused, fullgraph=True)
    expected = step(apart, images())
    actual = step(compiled, images())
    assert_alike({name.replace("_orig_mod.", ""): value for name, value in actual.items()}, expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_what_is_not_finite_spoils_the_same_numbers(value: float) -> None:
    """The running statistics too, in the steps that follow."""
    x = images()
    x[1, 0, 3, 3] = value
    apart, fused = block(), fused_copy(block())
    for batch in (x, images(1)):
        actual, expected = step(fused, batch), step(apart, batch)
        for name, wanted in expected.items():
            assert torch.equal(actual[name].isnan(), wanted.isnan()), name
            assert torch.equal(actual[name].isinf(), wanted.isinf()), name


@pytest.mark.parametrize("batch", [(1, 4, 1, 1), (0, 4, 3, 3)])
def test_too_few_elements_are_torchs_affair(batch: tuple[int, ...]) -> None:
    apart = nn.Sequential(nn.BatchNorm2d(4), bent_module(4))
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=(4, 3, 3))
    outcomes = []
    for model in (apart, fused):
        try:
            outcomes.append(str(model(torch.zeros(batch)).shape))
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


# What they keep


def test_activations_kept_for_the_backward_pass() -> None:
    """Not more than 2 % above ReLU's in place."""

    images = torch.randn(8, 3, 64, 64)
    for name in ("resnet18", "resnet50", "mobilenetv3_small_050"):
        relu = timm.create_model(name, act_layer=nn.ReLU)
        fused = timm.create_model(name, act_layer=nn.ReLU)
        replace_activations(fused, input_size=(3, 64, 64))
        fuse_batch_norm(fused, input_size=(3, 64, 64))
        kept = [kept_mib(partial(model.train(), images)) for model in (fused, relu)]
        assert kept[0] <= 1.02 * kept[1], name


# What stays


def test_state_dicts_copies_and_pickles() -> None:
    apart, fused = block(), fused_copy(block())
    assert list(fused.state_dict()) == list(apart.state_dict())
    apart.load_state_dict(fused_copy(block()).state_dict())
    fused.load_state_dict(apart.state_dict())
    for other in (copy.deepcopy(fused), saved_whole(fused)):
        assert is_fused(copy.deepcopy(other))
        assert_alike(step(other, images()), step(copy.deepcopy(fused), images()))
    assert all(isinstance(m, nn.BatchNorm2d) for m in (fused[0].bn1, fused[0].downsample[1]))


def test_fold_and_export_know_nothing_of_it() -> None:
    fused = fused_copy(block())
    fused(images())
    for absorb in (False, True):
        folded = fold(fused, absorb_batch_norm=absorb, input_size=SIZE)
        torch.testing.assert_close(folded(images()), fused.eval()(images()))
        assert not any("Fused" in type(module).__name__ for module in folded.modules())
    traced = torch.fx.symbolic_trace(fused)
    torch.testing.assert_close(traced(images()), fused(images()))
    program = torch.export.export(fold(fused), (images(),))
    torch.testing.assert_close(program.module()(images()), fused(images()))
    assert is_fused(fused)


def test_calibration() -> None:
    results = []
    for fuses in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(Block(nn.BatchNorm2d, 1)).double()
        for name in ("act1", "act2", "act3"):
            setattr(model[0], name, PWLU(4, init="silu", dtype=torch.float64))
        if fuses:
            fuse_batch_norm(model, input_size=SIZE)
        calibrate(model, [images(1), images(2)])
        results.append(model.state_dict())
    assert_alike(results[1], results[0])


def test_hooks_on_the_batch_norm_see_tensors() -> None:
    fused = fused_copy(block())
    outputs: list[Any] = []
    gradients: list[Any] = []
    fused[0].bn1.register_forward_hook(lambda *args: outputs.append(args[2]))
    fused[0].bn3.register_full_backward_hook(lambda *args: gradients.append(args[2][0]))
    assert_alike(step(fused, images()), step(block(), images()))
    assert type(outputs[0]) is Tensor and type(gradients[0]) is Tensor


def test_a_hook_on_the_pwlu_can_compute_with_its_input() -> None:
    inputs: list[list[Any]] = []

    def compute(_: nn.Module, args: tuple[Any]) -> None:
        z = args[0]
        inputs.append([z.mean(), z * 2, 1 - z, abs(z), z == 0, z[0], torch.relu(z), z.shape])

    for model in (block(), fused_copy(block())):
        model[0].act2.register_forward_pre_hook(compute)
        model(images())
    for one, other in zip(*inputs, strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other)
        else:
            assert one == other


def test_an_input_that_changes_before_it_is_used_is_an_error() -> None:
    class Changing(nn.Module):
        change = False

        def __init__(self) -> None:
            super().__init__()
            self.bn, self.act = nn.BatchNorm2d(3), bent_module(3)

        def forward(self, x: Tensor) -> Tensor:
            x = x + 1
            z = self.bn(x)
            if self.change:
                x += 1
            return self.act(z)

    model = Changing()
    fuse_batch_norm(model, input_size=SIZE)
    model.change = True
    with pytest.raises(RuntimeError, match="changed in place before the PWLU"):
        model(images().float())


def test_an_output_that_is_used_again_is_an_error() -> None:
    fused = fused_copy(block())
    kept: list[Any] = []
    fused[0].act1.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    fused(images())
    with pytest.raises(RuntimeError, match="used again after a PWLU or a sum had taken it"):
        kept[0].mean()


# What is reported


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.act, self.other = nn.BatchNorm2d(3), bent_module(3), bent_module(3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn(x)
        return self.act(z) + z.mean() + self.other(x + z[:1])


class IntoTheShortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(3), bent_module(3)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x + 1
        shortcut += self.bn(x)
        return self.act(shortcut)


class OneIsRead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.BatchNorm2d(3), nn.BatchNorm2d(3), bent_module(3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(x)
        return self.act(self.one(x) + z) + z.mean()


def test_one_of_two_that_has_another_reader_stays() -> None:
    apart = OneIsRead().double()
    fused = copy.deepcopy(apart)
    report = fuse_batch_norm(fused, input_size=SIZE)
    assert report.sites[0].norms == ("one",) and "mean" in report.sites[0].reason
    assert "fused with one, without the other one: " in str(report)
    assert_alike(step(fused, images()), step(apart, images()))


def test_a_sum_in_place_of_the_shortcut_stays() -> None:
    model = nn.Sequential(IntoTheShortcut(), nn.BatchNorm2d(3), bent_module(3))
    report = fuse_batch_norm(model, input_size=SIZE)
    assert report.sites[0].reason == "the sum before it is written into the shortcut"


class Subclass(nn.BatchNorm2d):
    """Might do more."""


def test_the_report_says_why_a_pwlu_stays_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), bent_module(3), TwoReaders(), Subclass(3), bent_module(3))
    report = fuse_batch_norm(model, input_size=SIZE)
    reasons = {site.pwlu: site.reason for site in report.sites}
    assert report.sites[0].norms == ("0",)
    assert "goes to aten.mean.default, aten.slice.Tensor, pwlu.forward.default" in reasons["2.act"]
    assert "sum" in reasons["2.other"]
    assert "Subclass, which may do more" in reasons["4"]
    assert str(report).endswith("1 of 4 PWLUs fused with the BatchNorm before them")
    more = fuse_batch_norm(model, input_size=SIZE, is_batch_norm=lambda m: isinstance(m, Subclass))
    assert more.sites[-1].norms == ("3",)


def test_a_batch_norm_that_calls_its_activation() -> None:
    norm = BatchNormAct2d(4)
    norm.act = bent_module(4)
    apart = nn.Sequential(nn.Conv2d(3, 4, 1), norm).double()
    fused = copy.deepcopy(apart)
    fuse_batch_norm(fused, input_size=SIZE)
    assert is_fused(copy.deepcopy(fused))
    assert_alike(step(fused, images()), step(apart, images()))


def test_in_phase_1_the_search_finds_the_same() -> None:
    model = block()
    TwoPhaseLearning(model, phase1_steps=2)
    report = fuse_batch_norm(model, input_size=SIZE)
    assert report.sites == fuse_batch_norm(block(), input_size=SIZE).sites
    assert report.sites[1].norms == ("0.bn2", "0.downsample.1")


def test_nothing_to_fuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no PWLU"):
        fuse_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(ValueError, match=r"(?s)no BatchNorm of Seq.*its input is made by"):
        fuse_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1), bent_module(3)), input_size=SIZE)
    with pytest.raises(ValueError, match="fuse_batch_norm follows the data .* check input_size"):
        fuse_batch_norm(block(), input_size=(7, 8, 8))

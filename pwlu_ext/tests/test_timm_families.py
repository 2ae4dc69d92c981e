"""Small models of many timm families: replaced, trained in both phases, saved; nothing is passed over."""

import io
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pwlu import PWLU, ReplacementReport, TwoPhaseLearning, replace_activations

FIRST, LAST, BOTH = {1}, {-1}, {1, -1}  # where a model has its channels
TINY, WIDTHS, FUNCTION = "tiny map", "one module called with", "called as a function"

# A model, what makes it small, where it has its channels, for which reasons sites are kept.
FAMILIES: list[tuple[str, dict[str, Any], set[int], set[str]]] = [
    ("test_resnet", {}, FIRST, set()),
    ("dla46_c", {}, FIRST, {WIDTHS}),
    ("res2net50_14w_8s", {"layers": [1, 1, 1, 1]}, FIRST, {WIDTHS}),
    ("regnety_002", {}, FIRST, {TINY}),
    ("densenet121", {"growth_rate": 8, "block_config": (2, 2)}, FIRST, set()),
    ("test_nfnet", {}, FIRST, {TINY}),
    ("mobileone_s0", {}, FIRST, set()),
    ("mobilenetv3_small_050", {}, FIRST, {TINY}),
    ("mobilenetv4_conv_small_035", {}, FIRST, {TINY}),
    ("ghostnetv3_050", {}, FIRST, {TINY}),
    ("tinynet_e", {}, FIRST, {TINY}),
    ("starnet_s050", {}, FIRST, set()),
    ("inception_next_atto", {}, FIRST, {TINY}),
    ("fastvit_t8", {}, FIRST, {TINY}),
    ("mobilevitv2_050", {}, FIRST, {FUNCTION}),
    ("efficientvit_b0", {}, FIRST, {TINY}),
    ("convnextv2_atto", {"depths": (1, 1, 1, 1)}, FIRST, set()),
    ("test_convnext", {}, LAST, set()),
    ("test_mambaout", {}, BOTH, {TINY}),
    ("test_maxvit", {"img_size": 64}, BOTH, {TINY}),
    ("xcit_nano_12_p16_224", {"depth": 2}, BOTH, {TINY}),
    ("levit_128s", {"img_size": 64}, BOTH, {TINY}),
    ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, LAST, set()),  # 256 tokens of 256 channels
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "depths": (1, 1)}, LAST, set()),
    ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, LAST, set()),
    ("gmixer_12_224", {"img_size": 64}, LAST, set()),  # halves of 384 units beside 384 channels
    ("test_vit", {"img_size": 64}, LAST, set()),
]


ACTIVATIONS = {
    *("relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "hardtanh"),
    *("softplus", "_prelu_kernel", "rrelu_with_noise", "threshold"),
}
GATES = {"Hardsigmoid", "HardSigmoid", "HardSigmoidMe", "Sigmoid", "Tanh"}


class Witness(TorchDispatchMode):
    """Sees every activation and PWLU that runs, with the names of the modules whose forward it is part of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ran: list[tuple[str, list[str]]] = []
        self._running: list[tuple[str, nn.Module]] = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(
                lambda module, _, name=name: self._running.append((name, module))
            )
            module.register_forward_hook(self._leave, always_call=True)

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket.__name__
        if (
            str(func) == "pwlu.forward.default"
            or operator.rstrip("_") in ACTIVATIONS
            or operator in ACTIVATIONS
        ):
            if not any(type(module).__name__ in GATES for _, module in self._running):
                self.ran.append((operator, [name for name, _ in self._running]))
        return func(*args, **(kwargs or {}))


def assert_accounted_for(model: nn.Module, report: ReplacementReport, x: Tensor) -> None:
    """Everything that runs is a new module, or the report names where it is."""
    with torch.no_grad(), Witness(model) as witness:
        model(x)
    new = {names[-1] for operator, names in witness.ran if operator == "forward"}
    assert new == {site.name for site in report.sites if site.replaced}
    kept = {site.name for site in report.sites if not site.replaced}
    for operator, names in witness.ran:
        assert operator == "forward" or kept & set(names), (operator, names)


def built(name: str, options: dict[str, Any]) -> tuple[nn.Module, ReplacementReport, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **options)
    size = (3, *2 * (options.get("img_size", 64),))
    return model, replace_activations(model, input_size=size), torch.randn(2, *size)


def train(model: nn.Module, x: Tensor) -> None:
    """A step in phase I, the realignment, a step in phase II."""
    sites = [module for module in model.modules() if isinstance(module, PWLU)]
    phases = TwoPhaseLearning(model.train(), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for realigns in (True, False):
        loss = model(x).square().mean()
        loss.backward()
        for parameter in (p for site in sites for p in site.parameters()):
            assert parameter.grad is not None and parameter.grad.isfinite().all()
        phases.before_optimizer_step()
        optimizer.step()
        assert phases.after_optimizer_step() == realigns
        optimizer.zero_grad()
    assert loss.isfinite() and not any(site.left.eq(-site.bound).all() for site in sites)


@pytest.mark.parametrize("name, options, dims, reasons", FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_family(name: str, options: dict[str, Any], dims: set[int], reasons: set[str]) -> None:
    model, report, x = built(name, options)
    sites = {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}
    assert {site.name: site.num_channels for site in report.sites if site.replaced} == {
        name: module.num_parameters for name, module in sites.items()
    }
    assert {module.channel_dim for module in sites.values()} == dims
    kept = [site.reason for site in report.sites if not site.replaced]
    assert all(reason.startswith(tuple(reasons)) for reason in kept) and bool(kept) == bool(reasons)
    assert_accounted_for(model.eval(), report, x)
    train(model, x)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other, *_ = built(name, options)
    other.load_state_dict(torch.load(stored, weights_only=True))
    with torch.no_grad():
        y = model.eval()(x)
        assert y.isfinite().all() and torch.equal(other.eval()(x), y)


@pytest.mark.parametrize("name", ["test_nfnet", "mobilenetv3_small_050", "levit_128s", "test_maxvit"])
def test_a_family_computes_in_phase_1_what_it_computed(name: str) -> None:
    """To the bit, from PWLUs that start as GELU, Hardswish, ReLU and SiLU."""
    options = next(options for known, options, *_ in FAMILIES if known == name)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **options).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        report = replace_activations(model, input_size=(3, 64, 64), init="replaced")
        TwoPhaseLearning(model, 1)
        assert torch.equal(model(x), expected)
    kept = [site.reason for site in report.sites if not site.replaced]
    assert all(TINY in reason for reason in kept)


def test_a_family_with_nothing_to_replace_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"(?s)nothing was replaced.*blocks.0.0.bn1 +x \* sigmoid\(x\)"):
        built("test_efficientnet_evos", {})

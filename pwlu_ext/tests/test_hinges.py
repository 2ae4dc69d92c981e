"""The forms of hinges: their numbers, the knots that they leave out, what is exported of them."""

import io
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pwlu import PWLU, ConvolutionPWLU, HingePWLU, ScaledHingePWLU, fold, pwlu_reference
from pwlu.inference.scaled_hinges import offset_places
from pwlu.inference.tables import fold_to_hinges
from pwlu_ext.tests.helpers import (
    DTYPES,
    Parameters,
    bent_module,
    channel_shape,
    function,
    layer,
    random_parameters,
    spread_inputs,
)
from pwlu_ext.tests.test_properties import reproducible

FORMS = ("hinges", "convolutions")


def hinged(module: nn.Module, max_error: float = 0.0, form: str = "hinges") -> nn.Module:
    return fold(module, form=form, max_error=max_error)


def assert_near(parameters: Parameters, x: Tensor, channel_dim: int = 1) -> None:
    """Sums of hinges differ from the reference in float64 by no more than the docstrings say."""
    module = layer(parameters, channel_dim)
    hinges, (scaled, convolutions) = fold_to_hinges(module)[0], (hinged(module, form=name) for name in FORMS)
    assert isinstance(convolutions, ConvolutionPWLU)
    exact = pwlu_reference(x.double(), *(p.double() for p in parameters), channel_dim=channel_dim)
    rounding = 0.505 * torch.finfo(x.dtype).eps * exact.abs()
    bound = hinge_bound(hinges, x.double())
    for form in (hinges, convolutions, scaled):
        if isinstance(form, ScaledHingePWLU):
            bound = scaled_hinge_bound(form, x.double())
        y = form(x)
        assert y.dtype == x.dtype and y.shape == x.shape
        assert ((y.double() - exact).abs() <= bound + rounding).all()


def hinge_bound(form: HingePWLU, x: Tensor) -> Tensor:
    """How far a sum of hinges may be from the function."""
    shape = channel_shape(x.dim(), len(form.slope), form.channel_dim)
    size = torch.maximum((form.slope.reshape(shape) * x).abs(), form.offset.abs().reshape(shape))
    hinges = torch.zeros_like(x)
    for knots, bends in ((form.lower, form.lower_bends), (form.upper, form.upper_bends)):
        for knot, bend in zip(knots.unbind(1), bends.unbind(1), strict=True):
            hinges += bend.abs().reshape(shape) * (x - knot.reshape(shape)).abs()
    return 4 * (form.num_knots + 2) * torch.finfo(form.slope.dtype).eps * torch.maximum(size, hinges)


def scaled_hinge_bound(form: ScaledHingePWLU, x: Tensor) -> Tensor:
    """The same, of hinges at the same places in all channels."""
    shape = channel_shape(x.dim(), len(form.slope), form.channel_dim)
    u = x.abs() * form.scale.reshape(shape) + form.shift.abs().reshape(shape)
    size = form.slope.abs().reshape(shape) * u + form.offsets.abs().sum(1).reshape(shape)
    for knot, bend in zip(form.knots.unbind(), form.bends.unbind(1), strict=True):
        size = size + bend.abs().reshape(shape) * (u + knot.abs())
    return 4 * (form.num_knots + 3) * torch.finfo(form.slope.dtype).eps * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("num_intervals", [1, 5, 16])
def test_equals_the_reference(dtype: torch.dtype, groups: int, num_intervals: int) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(groups, num_intervals, dtype=wide)
    for channel_dim, shape in ((1, (4, 3, 5, 6)), (-1, (2, 7, 3))):
        assert_near(parameters, spread_inputs(shape, parameters, channel_dim, dtype), channel_dim)


@reproducible
@given(
    seed=st.integers(0, 10_000),
    num_intervals=st.integers(1, 9),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.sampled_from([-100.0, 0.0, 7.0]),
)
def test_equals_the_reference_wherever_the_function_lies(
    seed: int, num_intervals: int, scale: float, shift: float
) -> None:
    left, right, points, *slopes = random_parameters(3, num_intervals, seed=seed)
    parameters = (left * scale + shift, right * scale + shift, points, *slopes)
    x = shift + scale * 4 * torch.randn(50, 3, generator=torch.Generator().manual_seed(seed))
    assert_near(parameters, x)


def test_by_hand() -> None:
    """0.5 x below -1, 1 from 0 on, and two lines between, of slopes 1 and 2."""
    form, _ = fold_to_hinges(layer(function(-1.0, 1.0, [-0.5, 0.5, 2.5], 0.5, 0.0)))
    assert form.lower.tolist() == [[-1.0]] and form.lower_bends.tolist() == [[0.5]]
    assert form.upper.tolist() == [[0.0, 1.0]] and form.upper_bends.tolist() == [[1.0, -2.0]]
    assert (form.slope.item(), form.offset.item(), form.num_knots) == (1.0, 0.5, 3)
    x = torch.tensor([-3.0, -0.5, 0.5, 4.0])
    assert form(x).tolist() == [-1.5, 0.0, 1.5, 2.5]


def test_scaled_by_hand() -> None:
    """The function of `test_by_hand` at half the scale: its knots are -1, 0 and 1 in u = 2 x."""
    form = hinged(layer(function(-0.5, 0.5, [-0.5, 0.5, 2.5], 1.0, 0.0)))
    assert (form.scale.item(), form.shift.item(), form.slope.item()) == (2.0, 0.0, 1.0)
    assert form.knots.tolist() == [-1.0, 0.0, 1.0] and form.bends.tolist() == [[-0.5, 1.0, -2.0]]
    assert form.offsets.tolist() == [[0.5 - 0.5 + 2.0]] and form.num_knots == 3
    x = torch.tensor([-1.5, -0.25, 0.25, 2.0])
    assert form(x).tolist() == [-1.5, 0.0, 1.5, 2.5]


def test_where_no_channel_is_bent_there_is_no_hinge() -> None:
    """Flat tails, and bends of the first channel at 0, 3 and 6, of the second one at 0 and 6."""
    left, right, flat = torch.zeros(2), torch.tensor([6.0, 12.0]), torch.zeros(2)
    points = torch.tensor([[0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 9.0], [0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0]])
    form = hinged(layer((left, right, points, flat, flat)))
    assert isinstance(form, ScaledHingePWLU)
    assert form.knots.tolist() == [-3.0, 0.0, 3.0] and form.scale.tolist() == [1.0, 0.5]
    x = torch.linspace(-2, 14, 41)[:, None].expand(-1, 2)
    torch.testing.assert_close(form(x), pwlu_reference(x, left, right, points, flat, flat))


def test_the_form_of_fewer_tensors_is_taken() -> None:
    parameters = random_parameters(5, 16)
    assert type(hinged(layer(parameters))) is ScaledHingePWLU
    assert type(hinged(layer(parameters), 100.0)) is HingePWLU
    assert type(hinged(PWLU(3))) is HingePWLU  # ReLU


@pytest.mark.parametrize(
    ("knots", "places"), [(3, [2]), (7, [6]), (8, [7]), (17, [7, 14]), (23, [7, 14, 21])]
)
def test_an_offset_begins_every_pass_of_openvino(knots: int, places: list[int]) -> None:
    """No pass has more than 11 tensors: two or three of all elements, and those of every channel."""
    assert offset_places(knots) == places
    form = hinged(layer(random_parameters(3, knots - 1)))
    assert form.num_knots == knots and form.offsets.shape == (3, len(places))


def test_convolutions_by_hand() -> None:
    """The line turns around 0: the function of `test_by_hand` is 0.5 there, where its slope becomes 2."""
    form = hinged(layer(function(-1.0, 1.0, [-0.5, 0.5, 2.5], 0.5, 0.0)), form="convolutions")
    assert form.signs.flatten().tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert form.shifts.tolist() == [-1.0, 0.0, 0.0, -1.0]
    assert form.weights.flatten().tolist() == [0.5, -1.0, 2.0, -2.0]
    assert form.offset.item() == 0.5
    x = torch.tensor([-3.0, -0.5, 0.5, 4.0])
    assert form(x).tolist() == [-1.5, 0.0, 1.5, 2.5]


def test_what_is_straight_has_no_knots() -> None:
    assert hinged(PWLU(3)).num_knots == 1  # ReLU
    assert hinged(PWLU(3, init="leaky_relu")).num_knots == 1
    line = layer(function(-1.0, 1.0, [-2.0, 0.0, 2.0], 2.0, 2.0))
    form = hinged(line)
    assert form.num_knots == 0 and form(torch.tensor([-9.0, 3.0])).tolist() == [-18.0, 6.0]
    form = hinged(line, form="convolutions")
    assert form(torch.tensor([-9.0, 3.0])).tolist() == [-18.0, 6.0]


@pytest.mark.parametrize("max_error", [0.0, 0.01, 0.3, 2.0, 100.0])
def test_knots_are_left_out_up_to_an_error_that_is_reported(max_error: float) -> None:
    parameters = random_parameters(5, 16, dtype=torch.float64)
    form = hinged(layer(parameters), max_error)
    x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None].expand(-1, 5)
    error = (form(x) - pwlu_reference(x, *parameters)).abs().max().item()
    (found,) = form.fold_report.hinges
    assert error <= found.error + 1e-12 <= max_error + 1e-9
    assert error > 0.9 * found.error  # the grid is fine
    assert found.knots == form.num_knots
    if max_error == 100.0:
        assert form.num_knots <= 2  # the tails stay what they are


def test_no_fewer_knots_would_do() -> None:
    """A bent line of 6 pieces with points that lie 0.1 off it."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([0.0, 3.0, -2.0, 4.0, 1.0, 2.0, -3.0], dtype=torch.float64)
    share = torch.arange(4, dtype=torch.float64) / 4
    points = torch.cat(
        [(a + share * (b - a)) for a, b in zip(corners[:-1], corners[1:], strict=True)] + [corners[-1:]]
    )
    off = 0.1 * (2 * torch.rand(25, generator=generator, dtype=torch.float64) - 1)
    off[::4] = 0
    one = torch.zeros(1, dtype=torch.float64)
    module = layer((one - 2, one + 2, (points + off)[None], one, one))
    assert hinged(module, 0.1).num_knots == 7 and hinged(module, 0.05).num_knots > 7


def test_absorbed_batch_norms() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), bent_module(4, 6)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-1.5, 0.5, 0.0, 2.0]))
        model[1].running_mean.normal_()
        model[1].bias.normal_()
    x = torch.randn(5, 3, 8, 8)
    form = fold(model, absorb_batch_norm=True, input_size=(3, 8, 8), form="hinges")
    assert isinstance(form[1], nn.Identity)
    torch.testing.assert_close(form(x), model(x), rtol=1e-4, atol=1e-4)
    report = str(form.fold_report)
    assert "absorbed 1" in report and "7 hinges, error 0" in report
    assert report.endswith(
        "1 of 1 PWLUs absorbed the BatchNorm before them; 1 PWLUs have 7 hinges at most, error 0"
    )


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        (layer(function(1.0, 1.0, [0.0, 2.0], 0.0, 0.0)), {"form": "hinges"}, "PWLU '' cannot.*jumps at 1"),
        (
            bent_module(),
            {"form": "hinge"},
            "form is 'hinge', expected one of table, operator, in_place, hinges, conv",
        ),
        (bent_module(), {"form": "hinges", "max_error": -1.0}, "max_error is -1.0, expected"),
        (bent_module(), {"form": "hinges", "max_error": float("nan")}, "max_error is nan, expected"),
        (bent_module(), {"max_error": 0.1}, "max_error is 0.1, but form='table' is exact"),
    ],
)
def test_what_cannot_be(module: nn.Module, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fold(module, **options)


@pytest.mark.parametrize("name", FORMS)
def test_a_copy_keeps_float32_and_loads(name: str) -> None:
    form, other = hinged(bent_module(), form=name), hinged(bent_module(), form=name)
    assert {buffer.dtype for buffer in form.half().buffers()} == {torch.float32}
    file = io.BytesIO()
    torch.save(form.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    x = torch.randn(4, 3)
    assert torch.equal(form(x), other(x))


@pytest.mark.parametrize("name", FORMS)
def test_exported_and_traced_it_is_plain_operations(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), bent_module(4), nn.Conv2d(4, 2, 3), bent_module(1))
    form, x = hinged(model, form=name), torch.randn(2, 3, 8, 8)
    expected = form(x)
    graphs = [
        torch.export.export(form, (x,)).module(),
        torch.compile(form, fullgraph=True, backend="aot_eager"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graphs.append(torch.jit.trace(form, (x,)))
    for graph in graphs:
        torch.testing.assert_close(graph(x), expected)
    assert {node.kind().partition("::")[0] for node in graphs[2].inlined_graph.nodes()} <= {"aten", "prim"}

"""Every wrong argument raises a ValueError that names it, says what came and what was expected."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pwlu import PWLU, TwoPhaseLearning, pwlu
from pwlu_ext.tests.helpers import BOTH, NAMES, Operator, random_parameters


def arguments() -> dict[str, Tensor]:
    """Good arguments for 3 channels and 4 intervals."""
    return {"x": torch.zeros(2, 3, 5), **dict(zip(NAMES, random_parameters(3, 4), strict=True))}


def assert_refused(operator: Operator, named: dict[str, Tensor], *parts: str, **options: Any) -> None:
    with pytest.raises(ValueError) as error:
        operator(*named.values(), **options)
    message = str(error.value)
    assert message.startswith("pwlu: ")
    for part in parts:
        assert part in message, message


@BOTH
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("x_dtype", "came", "expected"),
    [
        (torch.float32, torch.float16, "float32"),
        (torch.float32, torch.float64, "float32"),
        (torch.bfloat16, torch.bfloat16, "float32"),
        (torch.float16, torch.int64, "float32"),
        (torch.float64, torch.float32, "float64"),
    ],
)
def test_dtype_of_a_parameter(
    operator: Operator, name: str, x_dtype: torch.dtype, came: torch.dtype, expected: str
) -> None:
    kept = torch.float64 if x_dtype == torch.float64 else torch.float32
    named = {key: tensor.to(kept) for key, tensor in arguments().items()}
    named["x"], named[name] = named["x"].to(x_dtype), named[name].to(came)
    assert_refused(operator, named, f"`{name}`", expected, str(came).removeprefix("torch."))


DTYPES_OF_X = (torch.int32, torch.int64, torch.bool, torch.uint8, torch.complex64)
VECTORS = [(name, shape) for name in NAMES if name != "points" for shape in ((2,), (1,), (3, 1), (), (0,))]
POINTS = [(3,), (3, 1), (0, 5), (3, 0), (3, 5, 1), ()]
# What comes instead of the right argument, and what the sentence has to say.
WRONG: list[tuple[dict[str, Tensor], int, list[str]]] = [
    *(({"x": torch.zeros(2, 3, 5, dtype=d)}, 1, ["`x`", "float64, float32"]) for d in DTYPES_OF_X),
    *(({name: torch.zeros(shape)}, 1, [f"`{name}`", "(3,)", str(shape)]) for name, shape in VECTORS),
    *(({"points": torch.zeros(s)}, 1, ["`points`", "(G, num_intervals + 1)", str(s)]) for s in POINTS),
    *(({name: arguments()[name].to("meta")}, 1, [f"`{name}`", "meta", "cpu"]) for name in NAMES),
    ({"x": torch.zeros(2, 3, 5, device="meta")}, 1, ["`left`", "meta", "cpu"]),
    ({"x": torch.zeros(2, 4, 5)}, 1, ["(2, 4, 5)", "4 channels", "parameters are for 3"]),
    ({"x": torch.zeros(3, 0, 4)}, 1, ["(3, 0, 4)", "0 channels"]),
    ({}, -1, ["5 channels in dimension -1"]),
    ({}, 3, ["`channel_dim` is 3", "(2, 3, 5)"]),
    ({}, -4, ["`channel_dim` is -4", "(2, 3, 5)"]),
    ({"x": torch.zeros(())}, 1, ["`channel_dim` is 1", "()"]),
]


@BOTH
@pytest.mark.parametrize(("wrong", "channel_dim", "parts"), WRONG, ids=lambda value: str(value)[:40])
def test_shapes_dtypes_and_devices(
    operator: Operator, wrong: dict[str, Tensor], channel_dim: int, parts: list[str]
) -> None:
    assert_refused(operator, arguments() | wrong, *parts, channel_dim=channel_dim)


@pytest.mark.gpu
@pytest.mark.parametrize("moved", ["x", *NAMES])
def test_two_devices(moved: str) -> None:
    named = arguments()
    named[moved] = named[moved].cuda()
    assert_refused(pwlu, named, "`points`" if moved == "x" else f"`{moved}`", "device")


def test_gradient_of_another_shape_or_dtype() -> None:
    named = arguments()
    for grad in (torch.zeros(2, 3), torch.zeros(2, 3, 5, dtype=torch.float16)):
        with pytest.raises(ValueError, match=r"`grad` must have the shape \(2, 3, 5\) and dtype float32"):
            torch.ops.pwlu.backward(grad, *named.values(), 1)


def test_module_names_the_mismatch() -> None:
    with pytest.raises(ValueError, match="4 channels .* parameters are for 3"):
        PWLU(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="`points` must be float32 for a float32 x, but is float64"):
        PWLU(3).double()(torch.zeros(2, 3))


def test_module_names_the_mismatch_in_phase_1() -> None:
    module = PWLU(3)
    TwoPhaseLearning(module, 1)
    with pytest.raises(ValueError, match="4 channels .* parameters are for 3"):
        module(torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_parameters": 0}, "`num_parameters` must be a positive integer, but is 0"),
        ({"num_parameters": 2.0}, "`num_parameters` must be a positive integer, but is 2.0"),
        ({"num_parameters": True}, "`num_parameters` must be a positive integer, but is True"),
        ({"num_intervals": 0}, "`num_intervals` must be a positive integer, but is 0"),
        ({"num_intervals": -3}, "`num_intervals` must be a positive integer, but is -3"),
        ({"num_intervals": "16"}, "`num_intervals` must be a positive integer, but is '16'"),
        ({"bound": 0}, "`bound` must be positive and finite, but is 0"),
        ({"bound": -1.0}, "`bound` must be positive and finite, but is -1.0"),
        ({"bound": float("inf")}, "`bound` must be positive and finite, but is inf"),
        ({"bound": float("nan")}, "`bound` must be positive and finite, but is nan"),
        ({"dtype": torch.float16}, "parameters are float32 or float64, but `dtype` is torch.float16"),
    ],
    ids=str,
)
def test_arguments_of_the_module(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        PWLU(**{"num_parameters": 3, **options})
    assert message in str(error.value)


@pytest.mark.parametrize("steps", [-1, 1.5, "3", True, None])
def test_number_of_phase_1_steps(steps: Any) -> None:
    with pytest.raises(ValueError, match=f"`phase1_steps` must be an integer >= 0, but is {steps!r}"):
        TwoPhaseLearning(PWLU(1), steps)

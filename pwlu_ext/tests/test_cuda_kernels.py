"""What only a GPU can show about the CUDA kernels."""

import pytest
import torch
from torch import Tensor

from pwlu import pwlu, pwlu_reference
from pwlu_ext.tests.helpers import (
    DTYPES,
    NAMES,
    Parameters,
    assert_matches_reference,
    evaluate,
    random_gradient,
    random_parameters,
    spread_inputs,
)

# Large enough to be cut into many blocks. Images of 49 and 81 elements are not aligned; 100 and 260 channels
# are several tiles of columns, the last one not full.
LARGE = {
    "NCHW": ((16, 64, 56, 56), 1, "contiguous"),
    "NCHW of 7 x 7": ((32, 512, 7, 7), 1, "contiguous"),
    "NCHW of 9 x 9": ((32, 33, 9, 9), 1, "contiguous"),
    "channels_last": ((16, 64, 56, 56), 1, "channels_last"),
    "channels_last, many channels": ((8, 2048, 7, 7), 1, "channels_last"),
    "channels_last, odd channels": ((8, 33, 40, 40), 1, "channels_last"),
    "channels_last, 100 channels": ((8, 100, 40, 40), 1, "channels_last"),
    "tokens": ((8, 400, 260), -1, "contiguous"),
}


def assert_sums_match_reference(x: Tensor, parameters: Parameters, channel_dim: int) -> dict[str, Tensor]:
    """Like assert_matches_reference, for long sums of cancelling terms: the tolerance grows as they do."""
    grad = random_gradient(x)
    actual = evaluate(pwlu, x, parameters, grad, channel_dim)
    exact = tuple(p.double() for p in parameters)
    expected = evaluate(pwlu_reference, x.double(), exact, grad.double(), channel_dim)
    arithmetic = 1e-13 if x.dtype == torch.float64 else 1e-5
    rounding = 0.505 * torch.finfo(x.dtype).eps
    terms = x.numel() / parameters[0].numel()
    for name, value in actual.items():
        of_x = name in ("x", "y")
        torch.testing.assert_close(
            value.double(),
            expected[name],
            rtol=rounding if of_x else 0,
            atol=arithmetic * (10 if of_x else terms**0.5),
            msg=lambda text, name=name: f"{name}: {text}",
        )
    return actual


@pytest.mark.gpu
@pytest.mark.parametrize("groups", ["one", "channels"])
@pytest.mark.parametrize("case", LARGE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_inputs(dtype: torch.dtype, case: str, groups: str) -> None:
    shape, channel_dim, layout = LARGE[case]
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(1 if groups == "one" else shape[channel_dim], 16, kept, "cuda")
    x = spread_inputs(shape, parameters, channel_dim, dtype=dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    first = assert_sums_match_reference(x, parameters, channel_dim)
    again = evaluate(pwlu, x, parameters, random_gradient(x), channel_dim)
    assert all(torch.equal(first[name], again[name]) for name in first)


# The last of each dtype do not fit into shared memory.
TABLES = {torch.float32: (1, 21, 32, 64, 100, 126, 127, 300), torch.float64: (1, 20, 62, 63, 200, 7000)}


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("dtype", "num_intervals"), [(dtype, number) for dtype in TABLES for number in TABLES[dtype]], ids=str
)
def test_tables_of_every_size(dtype: torch.dtype, num_intervals: int, layout: torch.memory_format) -> None:
    left, right, points, *slopes = random_parameters(24, num_intervals, dtype, "cuda")
    points = points * min(1, 16 / num_intervals)  # no steeper than with 16: x has only so many digits
    parameters = (left, right, points, *slopes)
    x = spread_inputs((4, 24, 20, 20), parameters, dtype=dtype).contiguous(memory_format=layout)
    assert_matches_reference(pwlu, x, parameters)


def longest(shape: tuple[int, ...]) -> int:
    return max(range(len(shape)), key=lambda dim: shape[dim])


def end_of(tensor: Tensor, length: int) -> Tensor:
    """The last `length` places of the longest dimension."""
    dim = longest(tuple(tensor.shape))
    return tensor.narrow(dim, tensor.shape[dim] - length, length)


def zeros_but_for_the_end(shape: tuple[int, ...], end: Tensor) -> Tensor:
    huge = torch.zeros(shape, device="cuda", dtype=end.dtype)
    end_of(huge, max(end.shape)).copy_(end)
    return huge


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(2**25 + 3, 64), (1, 2, 2**30 + 40), (2**31 + 24,)], ids=str)
def test_more_than_2_to_the_31_elements(shape: tuple[int, ...]) -> None:
    needed = 6 * 2 * 2**31  # x, y, their gradients and room for copies, in bfloat16
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    groups = shape[1] if len(shape) > 1 else 1
    parameters = random_parameters(groups, 16, device="cuda")
    small = tuple(1000 if dim == longest(shape) else size for dim, size in enumerate(shape))
    end = spread_inputs(small, parameters, dtype=torch.bfloat16)
    grad = random_gradient(end)
    expected = evaluate(pwlu, end, parameters, grad)
    x, upper = zeros_but_for_the_end(shape, end), zeros_but_for_the_end(shape, grad)
    actual = evaluate(pwlu, x, parameters, upper)
    for name in ("y", "x"):
        torch.testing.assert_close(end_of(actual[name], 1000), expected[name], rtol=0.01, atol=0.01)
    start = actual["y"].narrow(longest(shape), 0, 5)
    torch.testing.assert_close(start, pwlu(torch.zeros_like(start), *parameters), rtol=0.01, atol=0.01)
    for name in NAMES:  # where the upper gradient is 0, nothing is added
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-3)


def backward(grad: Tensor, x: Tensor, parameters: Parameters) -> tuple[Tensor, ...]:
    return torch.ops.pwlu.backward.default(grad, x, *parameters, 1)


@pytest.mark.gpu
def test_runs_on_the_current_stream() -> None:
    parameters = random_parameters(8, 16, device="cuda")
    values = spread_inputs((4, 8, 100), parameters)
    expected = (pwlu(values, *parameters), *backward(values, values, parameters))
    x = torch.full_like(values, torch.nan)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would be done before x is written
        x.copy_(values)
        actual = (pwlu(x, *parameters), *backward(x, x, parameters))
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_cuda_graph(layout: torch.memory_format) -> None:
    parameters = random_parameters(8, 16, device="cuda")
    shape = (4, 8, 12, 12)
    first = spread_inputs(shape, parameters, seed=1).contiguous(memory_format=layout)
    second = spread_inputs(shape, parameters, seed=2).contiguous(memory_format=layout)
    x = first.clone()
    pwlu(x, *parameters)  # loads the kernels
    backward(x, x, parameters)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = (pwlu(x, *parameters), *backward(x, x, parameters))
    for values in (second, first):
        x.copy_(values)
        graph.replay()
        expected = (pwlu(values, *parameters), *backward(values, values, parameters))
        assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@pytest.mark.gpu
def test_tensors_on_another_gpu_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    parameters = random_parameters(5, 16, device="cuda:1")
    x = spread_inputs((3, 5, 40), parameters)
    assert torch.cuda.current_device() == 0
    assert_matches_reference(pwlu, x, parameters)
    assert torch.cuda.current_device() == 0


@pytest.mark.gpu
def test_a_gradient_on_another_device_is_an_error() -> None:
    parameters = random_parameters(3, 4, device="cuda")
    x = torch.randn(2, 3, device="cuda")
    with pytest.raises((ValueError, RuntimeError), match="`grad` must be on the CUDA device"):
        backward(x.cpu(), x, parameters)

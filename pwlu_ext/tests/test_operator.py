"""The kernels against the reference in float64: shapes, layouts, dtypes, channels, intervals."""

import pytest
import torch

from pwlu import pwlu
from pwlu_ext.tests.helpers import (
    DTYPES,
    NAMES,
    assert_matches_reference,
    evaluate,
    random_parameters,
    spread_inputs,
)

SHAPES = [
    (1, 1),
    (2, 3),
    (5, 1, 7),
    (3, 5, 1),
    (2, 3, 7),
    (1, 3, 130),
    (2, 17, 5, 3),
    (4, 16, 4, 4),
    (3, 33, 1, 1),
    (2, 6, 5, 6),  # C equal to W: a mix-up of axes would show
    (2, 4, 4, 4),
    (2, 3, 2, 3, 5),
    (1, 2, 1, 2, 1, 3),
]

# Each turns a contiguous (N, C, H, W) tensor into one of another memory layout.
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted_dense": lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
    "transposed_maps": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch_inside": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "sliced_columns": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "sliced_channels": lambda x: x.repeat_interleave(3, dim=1)[:, ::3],
    "cut_channels_last": lambda x: x.to(memory_format=torch.channels_last).repeat(1, 2, 1, 1)[
        :, : x.shape[1]
    ],
    "expanded_batch": lambda x: x[:1].expand(x.shape),
    "expanded_maps": lambda x: x[:, :, :1, :1].expand(x.shape),
    "storage_offset": lambda x: torch.cat([x.new_zeros(3), x.reshape(-1)])[3:].view(x.shape),
}


@pytest.mark.parametrize("groups", ["one", "channels"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(device: str, shape: tuple[int, ...], groups: str) -> None:
    parameters = random_parameters(1 if groups == "one" else shape[1], 6, device=device)
    assert_matches_reference(pwlu, spread_inputs(shape, parameters), parameters)


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device: str, layout: str, groups: int) -> None:
    parameters = random_parameters(groups, 7, device=device)
    x = LAYOUTS[layout](spread_inputs((3, 5, 4, 6), parameters))
    result = assert_matches_reference(pwlu, x, parameters)
    for name in ("y", "x"):
        assert result[name].stride() == torch.empty_like(x).stride(), name


@pytest.mark.parametrize("groups", [1, 19])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced_columns"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(device: str, dtype: torch.dtype, layout: str, groups: int) -> None:
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = random_parameters(groups, 16, kept, device)
    x = LAYOUTS[layout](spread_inputs((2, 19, 5, 7), parameters, dtype=dtype))
    assert_matches_reference(pwlu, x, parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_numbers_of_intervals(device: str, dtype: torch.dtype) -> None:
    for num_intervals in range(1, 65):
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        parameters = random_parameters(3, num_intervals, kept, device, seed=num_intervals)
        x = spread_inputs((2, 3, 5, 8), parameters, dtype=dtype)
        assert_matches_reference(pwlu, x, parameters)
        assert_matches_reference(pwlu, x.contiguous(memory_format=torch.channels_last), parameters)


def test_every_length_of_a_run(device: str) -> None:
    """A vector covers the last elements of a channel only in part."""
    parameters = random_parameters(2, 8, device=device)
    for length in range(1, 50):
        assert_matches_reference(pwlu, spread_inputs((2, 2, length), parameters, seed=length), parameters)


def test_every_number_of_channels(device: str) -> None:
    """The same across channels, where they are neighbours in memory."""
    for channels in (*range(1, 36), 63, 64, 65, 130):
        parameters = random_parameters(channels, 5, device=device)
        x = spread_inputs((3, 2, channels), parameters, channel_dim=-1, seed=channels)
        assert_matches_reference(pwlu, x, parameters, channel_dim=-1)


@pytest.mark.parametrize("channel_dim", [0, 1, 2, 3, -1, -2, -3, -4])
def test_channel_dim(device: str, channel_dim: int) -> None:
    parameters = random_parameters(4, 6, device=device)
    x = spread_inputs((4, 4, 4, 4), parameters, channel_dim)
    for layout in ("contiguous", "channels_last", "permuted_dense"):
        assert_matches_reference(pwlu, LAYOUTS[layout](x), parameters, channel_dim)


@pytest.mark.parametrize("shape", [(), (7,)], ids=str)
def test_layer_wise_needs_no_channel_dimension(device: str, shape: tuple[int, ...]) -> None:
    parameters = random_parameters(1, 4, device=device)
    assert_matches_reference(pwlu, spread_inputs(shape, parameters), parameters, channel_dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "groups", "layout"),
    [
        ((1, 2, 3, 47001), 2, "contiguous"),  # several pieces per channel, and long sums
        ((70, 3, 41, 43), 3, "contiguous"),  # several pieces over the batch
        ((2, 7, 200, 77), 1, "contiguous"),
        ((3, 70, 33, 35), 70, "channels_last"),  # two blocks of channels, several pieces of rows
        ((1, 3, 340, 343), 3, "channels_last"),
    ],
    ids=str,
)
def test_large_inputs(
    device: str, shape: tuple[int, ...], groups: int, layout: str, dtype: torch.dtype
) -> None:
    parameters = random_parameters(groups, 16, device=device)
    assert_matches_reference(pwlu, LAYOUTS[layout](spread_inputs(shape, parameters, dtype=dtype)), parameters)


@pytest.mark.parametrize("layout", ["channels_last", "permuted_dense", "expanded_batch", "sliced_columns"])
def test_gradient_of_another_layout_than_x(device: str, layout: str) -> None:
    parameters = random_parameters(3, 5, device=device)
    x = spread_inputs((2, 3, 4, 5), parameters)
    grad = LAYOUTS[layout](spread_inputs((2, 3, 4, 5), parameters, seed=5))
    assert_matches_reference(pwlu, x, parameters, grad=grad)
    last = x.contiguous(memory_format=torch.channels_last)
    assert_matches_reference(pwlu, last, parameters, grad=grad)


def test_parameters_of_any_layout(device: str) -> None:
    left, right, points, left_slope, right_slope = random_parameters(4, 5, device=device)
    spaced = (
        left.repeat_interleave(2)[::2],
        right.flip(0).flip(0),
        points.t().contiguous().t(),
        left_slope[:1].expand(4),
        torch.stack([right_slope, right_slope], dim=1)[:, 1],
    )
    assert_matches_reference(pwlu, spread_inputs((2, 4, 9), spaced), spaced)


@pytest.mark.parametrize("chosen", range(6))
def test_gradient_of_one_input_alone(device: str, chosen: int) -> None:
    parameters = random_parameters(3, 5, device=device)
    x = spread_inputs((2, 3, 7), parameters)
    together = evaluate(pwlu, x, parameters, torch.ones_like(x))
    tensors = [t.detach().requires_grad_(i == chosen) for i, t in enumerate((x, *parameters))]
    pwlu(*tensors).sum().backward()
    for i, (name, tensor) in enumerate(zip(("x", *NAMES), tensors, strict=True)):
        assert (tensor.grad is not None) == (i == chosen), name
        assert tensor.grad is None or torch.equal(tensor.grad, together[name]), name


def test_without_gradients(device: str) -> None:
    parameters = tuple(p.requires_grad_() for p in random_parameters(3, 5, device=device))
    x = spread_inputs((2, 3, 7), parameters)
    with torch.no_grad():
        y = pwlu(x, *parameters)
    with torch.inference_mode():
        y_inference = pwlu(x, *parameters)
    assert not y.requires_grad and y_inference.is_inference()
    assert torch.equal(y, y_inference) and torch.equal(y, pwlu(x, *parameters))

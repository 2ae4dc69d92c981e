"""Every kernel on little tensors, compared with the plain form on the CPU: what compute-sanitizer watches.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \
        python pwlu_ext/benchmarks/sanitizer_case.py

Without the caching allocator every tensor is an allocation of its own, whose ends memcheck knows. One that
is cut off another's front is not aligned to 16 bytes. Exits with 1 if a result is wrong.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
from rivals import FORMATS, Case
from torch import Tensor

import pwlu

# Long runs, runs that are not a multiple of a vector, images too small for runs, several tiles of columns.
SHAPES = ((2, 3, 16, 24), (2, 5, 9, 9), (3, 40, 7, 7), (2, 300, 2, 2))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTERVALS = (5, 16, 300)  # the last table does not fit into shared memory
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def placed(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """The tensor in that layout, at the start of its allocation: as aligned as can be."""
    return tensor.contiguous(memory_format=layout)


def cut_off(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """The same numbers in an allocation that starts one element earlier, so that vectors are not aligned."""
    ordered = placed(tensor, layout)
    longer = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    result = longer[1:].as_strided(ordered.shape, ordered.stride(), 1)
    return result.copy_(ordered)


def random_functions(channels: int, num_intervals: int, dtype: torch.dtype) -> list[Tensor]:
    """Parameters of functions that are no ReLU, one of them collapsed to a point."""
    parameters = Case(num_intervals=num_intervals).parameters((1, channels))
    moved = [p.to(dtype) + 0.2 * torch.randn(p.shape, dtype=dtype) for p in parameters]
    moved[1][0] = moved[0][0]
    return moved


def results(
    function: Callable[..., Tensor], x: Tensor, parameters: list[Tensor], grad: Tensor
) -> list[Tensor]:
    """y and all six gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in (x, *parameters)]
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def folded(x: Tensor, parameters: list[Tensor], device: str) -> Tensor:
    """y of the inference form."""
    points = parameters[2]
    layer = pwlu.PWLU(points.shape[0], points.shape[1] - 1, dtype=points.dtype)
    learned = (layer.left, layer.right, layer.points, layer.left_slope, layer.right_slope)
    with torch.no_grad():
        for ours, given in zip(learned, parameters, strict=True):
            ours.copy_(given)
        return pwlu.fold(layer).to(device)(x)


def check(x: Tensor, parameters: list[Tensor], grad: Tensor, device: str) -> bool:
    """Whether the kernels on `device` give what the plain form gives on the CPU in double precision."""
    there = [tensor.to(device) for tensor in parameters]
    actual = [*results(pwlu.pwlu, x, there, grad), folded(x, parameters, device)]
    exact = [tensor.cpu().double() for tensor in (x, grad)]
    expected = results(pwlu.pwlu_reference, exact[0], [p.double() for p in parameters], exact[1])
    expected.append(expected[0])
    limits = [TOLERANCE[x.dtype] * (1 + wanted.abs().max()) for wanted in expected]
    return all(
        bool((got.cpu().double() - wanted).abs().max() <= limit)
        for got, wanted, limit in zip(actual, expected, limits, strict=True)
    )


def main() -> None:
    """Run all cases; say how many there were and how many were wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: --device is cuda, but torch finds no usable GPU; --device cpu is a dry run")
    torch.manual_seed(0)
    wrong = []
    cases = list(product(SHAPES, DTYPES, FORMATS, INTERVALS, (placed, cut_off)))
    for shape, dtype, layout, intervals, place in cases:
        parameters = random_functions(shape[1], intervals, torch.promote_types(dtype, torch.float32))
        x, grad = (place(torch.randn(shape).to(device, dtype), FORMATS[layout]) for _ in range(2))
        if not check(x, parameters, grad, device):
            wrong.append((shape, dtype, layout, intervals, place.__name__))
    print(f"{len(cases)} cases, {len(wrong)} wrong", *wrong, sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

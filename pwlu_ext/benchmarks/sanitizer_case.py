"""Run every kernel on small tensors and compare with plain torch on the CPU, for compute-sanitizer to watch.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \\
        python -m pwlu_ext.benchmarks.sanitizer_case

Without the caching allocator every tensor is an allocation of its own, whose ends memcheck knows. The exit
status is 1 if a result is wrong.
"""

import argparse
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

import pwlu
from pwlu_ext.benchmarks.calls import FORMATS, Case

# Long runs, runs that are not a multiple of a vector, images too small for runs, several tiles of columns.
SHAPES = ((2, 3, 16, 24), (2, 5, 9, 9), (3, 40, 7, 7), (2, 300, 2, 2))
INTERVALS = (5, 16, 300)  # the last table does not fit into shared memory
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2, torch.float64: 1e-10}


def unaligned(tensor: Tensor) -> Tensor:
    """Return the tensor in an allocation that starts one element earlier, so that vectors are not aligned."""
    longer = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return longer[1:].as_strided(tensor.shape, tensor.stride(), 1).copy_(tensor)


def random_layer(channels: int, num_intervals: int, dtype: torch.dtype) -> pwlu.PWLU:
    """Return a layer whose functions are not ReLU; one of them is collapsed to a point."""
    layer = Case(num_intervals=num_intervals).layer((1, channels)).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        layer.right[0] = layer.left[0]
    return layer


def output_and_gradients(
    function: Callable[..., Tensor], x: Tensor, parameters: list[Tensor], grad: Tensor
) -> list[Tensor]:
    """Return y and all six gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in (x, *parameters)]
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def is_right(layer: pwlu.PWLU, x: Tensor, grad: Tensor) -> bool:
    """Return whether the kernels on x's device give what the plain form gives in double precision."""
    parameters = [layer.left, layer.right, layer.points, layer.left_slope, layer.right_slope]
    actual = output_and_gradients(pwlu.pwlu, x, [p.to(x.device) for p in parameters], grad)
    actual.append(pwlu.fold(layer).to(x.device)(x).detach())
    exact = [p.cpu().double() for p in parameters]
    expected = output_and_gradients(pwlu.pwlu_reference, x.cpu().double(), exact, grad.cpu().double())
    expected.append(expected[0])
    return all(
        bool((got.cpu().double() - wanted).abs().max() <= TOLERANCE[x.dtype] * (1 + wanted.abs().max()))
        for got, wanted in zip(actual, expected, strict=True)
    )


def main() -> None:
    """Run all cases; say how many there were and which were wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch finds no usable GPU; --device cpu is a dry run")
    torch.manual_seed(0)
    cases = list(product(SHAPES, TOLERANCE, FORMATS, INTERVALS, ("aligned", "unaligned")))
    wrong = []
    for case in cases:
        shape, dtype, layout, intervals, placement = case
        layer = random_layer(shape[1], intervals, torch.promote_types(dtype, torch.float32))
        ordered = (
            torch.randn(shape).to(device, dtype).contiguous(memory_format=FORMATS[layout]) for _ in range(2)
        )
        x, grad = (unaligned(tensor) if placement == "unaligned" else tensor for tensor in ordered)
        if not is_right(layer, x, grad):
            wrong.append(case)
    print(f"{len(cases)} cases, {len(wrong)} wrong", *wrong, sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

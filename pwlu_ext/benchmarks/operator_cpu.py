"""Forward and backward of the operator on a CPU against its rivals.

    python pwlu_ext/benchmarks/operator_cpu.py --threads 2 --output results/benchmarks/operator_cpu.json

float32, channel-wise, 16 intervals, normally distributed input on [-3, 3]. Times are the best of many
interleaved rounds. `pwlu backward` computes the gradient of x and of all five parameters.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import best_times, write_record
from torch import Tensor

import pwlu

SHAPES = [(8, 256, 28, 28), (32, 64, 56, 56)]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def rivals(x: Tensor, grad: Tensor) -> dict[str, Callable[[], object]]:
    """Every measured call on `x` of shape (N, C, H, W); `grad` is d loss / d y."""
    layer = pwlu.PWLU(x.shape[1])
    parameters = [
        p.detach() for p in (layer.left, layer.right, layer.points, layer.left_slope, layer.right_slope)
    ]
    learned = [p.clone().requires_grad_() for p in parameters]
    leaf = x.clone().requires_grad_()
    y = torch.empty_like(x)
    reference = pwlu.pwlu_reference(leaf, *learned)
    aten, ops = torch.ops.aten, torch.ops.pwlu
    return {
        "copy": lambda: y.copy_(x),
        "relu": lambda: F.relu(x),
        "silu": lambda: F.silu(x),
        "pwlu": lambda: ops.forward(x, *parameters, 1),
        "reference": lambda: pwlu.pwlu_reference(x, *parameters),
        "relu backward": lambda: aten.threshold_backward(grad, x, 0),
        "silu backward": lambda: aten.silu_backward(grad, x),
        "pwlu backward": lambda: ops.backward(grad, x, *parameters, 1),
        "reference backward": lambda: torch.autograd.grad(
            reference, [leaf, *learned], grad, retain_graph=True
        ),
    }


def measure(shape: tuple[int, ...], memory_format: str, rounds: int) -> dict[str, Any]:
    """One row: milliseconds of every rival, and the two ratios that matter."""
    torch.manual_seed(0)
    x = torch.randn(shape).to(memory_format=FORMATS[memory_format])
    calls = rivals(x, torch.randn_like(x))
    slow = {name: calls.pop(name) for name in list(calls) if name.startswith("reference")}
    times = best_times(calls, rounds) | best_times(slow, max(3, rounds // 20))
    return {
        "shape": list(shape),
        "memory_format": memory_format,
        "milliseconds": {name: round(1e3 * seconds, 4) for name, seconds in times.items()},
        "forward_over_silu": round(times["pwlu"] / times["silu"], 3),
        "backward_over_silu_backward": round(times["pwlu backward"] / times["silu backward"], 3),
    }


def main() -> None:
    """Measure, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--output", type=Path, help="JSON record to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(shape, name, arguments.rounds) for shape in SHAPES for name in FORMATS]
    for row in rows:
        print(f"{tuple(row['shape'])} {row['memory_format']}")
        for name, milliseconds in row["milliseconds"].items():
            print(f"    {name:20} {milliseconds:10.3f} ms")
        print(f"    forward {row['forward_over_silu']:.2f}x silu, ", end="")
        print(f"backward {row['backward_over_silu_backward']:.2f}x silu backward")
    settings = {"threads": arguments.threads, "rounds": arguments.rounds}
    write_record(arguments.output, "operator_cpu", settings, rows)


if __name__ == "__main__":
    main()

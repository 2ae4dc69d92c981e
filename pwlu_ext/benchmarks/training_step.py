"""One training step of ResNet-18 with PWLU against the same step with ReLU, interleaved.

    python pwlu_ext/benchmarks/training_step.py --threads 2 --output results/benchmarks/training_step.json

A step is forward, cross entropy, backward and SGD; float32, timm's resnet18, random images.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from measure import best_times, write_record
from torch import nn

import pwlu


def training_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """A function that trains `model` for one step on images (N, 3, H, W) and labels (N,)."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    model.train()

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def resnet18(make: Callable[[int], nn.Module] | None, image_size: int) -> nn.Module:
    """timm's ResNet-18 with its ReLUs, or with `make(channels)` in their place."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=1000)
    if make is not None:
        pwlu.replace_activations(model, input_size=(3, image_size, image_size), make=make)
    return model


def main() -> None:
    """Measure, print and record what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--output", type=Path, help="JSON record to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = torch.randn(arguments.batch, 3, arguments.image_size, arguments.image_size)
    labels = torch.randint(1000, (arguments.batch,))
    makers = {"relu": None, "silu": lambda channels: nn.SiLU(), "pwlu": pwlu.PWLU}
    steps = {
        name: training_step(resnet18(make, arguments.image_size), images, labels)
        for name, make in makers.items()
    }
    times = best_times(steps, arguments.rounds)
    rows = [
        {
            "activation": name,
            "milliseconds": round(1e3 * seconds, 2),
            "over_relu": round(seconds / times["relu"], 4),
        }
        for name, seconds in times.items()
    ]
    for row in rows:
        print(f"{row['activation']:6} {row['milliseconds']:10.2f} ms   {row['over_relu']:.3f}x ReLU")
    settings = {key: getattr(arguments, key) for key in ("threads", "rounds", "batch", "image_size")}
    write_record(arguments.output, "training_step", settings, {"steps": rows})


if __name__ == "__main__":
    main()

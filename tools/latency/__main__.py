"""Measure inference in ReLU, Swish, PWLU and others side by side (Table 4), and the training step.

    python -m tools.latency --output results/latency/cpu.json --iterations 30 --warm-up 3 --threads 2
    python -m tools.latency --output results/latency/gpu.json --device cuda --training-step

What is compared is interleaved: a round runs every activation of a model once, in one runtime after the
other, and the training step in both at once. The page lies beside the record, .md. PWLU runs in the form of
`pwlu.fold` that is for the runtime, once more with the BatchNorms before it absorbed, and once more in the
default form. cuda-graph is the capture of eager mode.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.amp import Precision
from engine.files import write_text_atomically
from engine.processes import distributed
from engine.processes.program import errors_told_by
from engine.runs.manifest import describe_start
from models import activation_factory
from models.classification import check_timm_name
from pwlu.suggestion import expected_one_of
from pwlu_ext.benchmarks.page import Row
from tools.latency.families import Arguments, measure_family
from tools.latency.runtimes import RUNTIMES, choose_runtimes, versions
from tools.latency.table import latency_table, table_4
from tools.latency.training import RUNTIMES as TRAINING_RUNTIMES
from tools.paper.numbers import PAPER
from tools.records import add_record_option, positive, tool_parser

KINDS = {None: ["inference"], "also": ["inference", "training_step"], "only": ["training_step"]}


def main() -> None:
    """Measure what the command line names; write and print the page."""
    parser = command_line()
    arguments = parser.parse_args(namespace=Arguments())
    with errors_told_by(parser):
        record = measure(arguments)
        page = latency_table(record, table_4(PAPER))
        write_text_atomically(arguments.output, json.dumps(record, indent=1) + "\n")
        write_text_atomically(arguments.output.with_suffix(".md"), page)
        print(page)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = tool_parser("latency", __doc__)
    add = result.add_argument
    add_record_option(result)
    add("--models", nargs="+", default=["resnet18", "mobilenetv3_small_100"], help="timm's names")
    rivals = ["relu", "swish", "pwlu", "frelu", "apl", "pau"]
    add("--activations", nargs="+", default=rivals, help=f"relu among them ({' '.join(rivals)})")
    add("--runtimes", type=runtime_names, help=f"{','.join(RUNTIMES)} (all that can be measured here)")
    add("--batch-size", type=positive, default=64, help="of inference (64)")
    add("--image-size", type=positive, default=224, help="in pixels (224)")
    add("--iterations", type=positive, default=500, help="rounds that count (500)")
    add("--warm-up", type=positive, default=50, help="rounds before them (50)")
    dtypes = ("float32", "bfloat16", "float16")
    add("--dtype", choices=dtypes, default="float32", help="of weights and images in inference (float32)")
    add("--channels-last", action="store_true")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one")
    add("--threads", type=positive, help="of the CPU (as torch chooses)")
    choices = ("also", "only")
    add("--training-step", nargs="?", const="also", choices=choices, help="measure it too, or it alone")
    add("--training-batch-size", type=positive, default=32, help="(32)")
    add("--training-amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision (off)")
    return result


def runtime_names(text: str) -> list[str]:
    """Read names of runtimes with commas between them, for argparse."""
    result = text.split(",")
    for name in result:
        if name not in RUNTIMES:
            raise argparse.ArgumentTypeError(expected_one_of("runtime", name, RUNTIMES))
    return result


def measure(arguments: Arguments) -> dict[str, Any]:
    """Return the record. Raises ValueError for a wrong argument, or too small a device or memory."""
    check(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = distributed.start(arguments.device)
    kinds = KINDS[arguments.training_step]
    arguments.runtimes, left_out = choose_runtimes(arguments.runtimes, world.device)
    if "training_step" in kinds and not set(TRAINING_RUNTIMES) & set(arguments.runtimes):
        raise ValueError(
            f"--runtimes is {','.join(arguments.runtimes)}, in which the training step cannot run; add "
            f"{' or '.join(TRAINING_RUNTIMES)}"
        )
    Precision(arguments.training_amp, world.device)  # refuses what the device cannot do
    torch.backends.cudnn.benchmark = True  # as train_imagenet.py: every batch has the same shape
    components = {"runtimes": versions(arguments.runtimes)}
    environment = describe_start(step=0, world_size=1, device=world.device, components=components)
    rows: dict[str, list[Row]] = {"inference": [], "training_step": []}
    for model in dict.fromkeys(arguments.models):
        for kind in kinds:
            rows[kind] += measure_family(kind, model, arguments, world)
    return {
        "benchmark": "latency",
        "arguments": {name: str(v) if isinstance(v, Path) else v for name, v in vars(arguments).items()},
        "environment": environment,
        "left_out": left_out,
        **rows,
    }


def check(arguments: Arguments) -> None:
    """Raise a ValueError that names the argument which is wrong, before anything takes long."""
    examined: list[tuple[str, Callable[[str], object], list[str]]] = [
        ("--models", check_timm_name, arguments.models),
        ("--activations", activation_factory, arguments.activations),
    ]
    for option, examine, names in examined:
        for name in names:
            try:
                examine(name)
            except ValueError as error:
                raise ValueError(f"{option}: {error}") from error
    if "relu" not in arguments.activations:
        raise ValueError(
            f"--activations is {' '.join(arguments.activations)}, without relu, which the others are "
            "compared with; add it"
        )
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch finds no usable GPU; use --device cpu")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    main()

"""Measure inference in ReLU, Swish, PWLU and others side by side (Table 4), and the training step.

    python -m tools.latency --output results/latency/cpu.json --iterations 30 --warm-up 3 --threads 2
    python -m tools.latency --output results/latency/gpu.json --device cuda --training-step

All that is compared in one model is interleaved: a round runs every activation in every mode once. The page
lies beside the record, .md. PWLU runs in the form of section 4.3, and once more with the BatchNorms before it
absorbed. cuda-graph is the capture of eager mode.
"""

import argparse
import json
from collections.abc import Callable, Sequence
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
from pwlu_ext.benchmarks.page import Row
from tools.latency.families import Arguments, measure_family
from tools.latency.networks import MODES
from tools.latency.table import latency_table, table_4
from tools.paper.numbers import PAPER
from tools.records import add_record_option, positive, tool_parser

KINDS = {None: ["inference"], "also": ["inference", "training_step"], "only": ["training_step"]}
NO_GRAPH = "cuda-graph was left out: a CPU has no CUDA graphs."
NO_TRAINING_GRAPH = (
    "The training step has no mode cuda-graph: its learning rate, seed and phase are the host's."
)


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
    add("--modes", nargs="+", choices=MODES, help="all that the device can do")
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


def measure(arguments: Arguments) -> dict[str, Any]:
    """Return the record. Raises ValueError for a wrong argument, or too small a device or memory."""
    check(arguments)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = distributed.start(arguments.device)
    kinds = KINDS[arguments.training_step]
    arguments.modes, left_out = choose_modes(arguments.modes, kinds, world.device)
    Precision(arguments.training_amp, world.device)  # refuses what the device cannot do
    torch.backends.cudnn.benchmark = True  # as train_imagenet.py: every batch has the same shape
    environment = describe_start(step=0, world_size=1, device=world.device, components={})
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


def choose_modes(
    asked: Sequence[str] | None, kinds: Sequence[str], device: torch.device
) -> tuple[list[str], list[str]]:
    """Return the modes to measure, and a sentence for each that is left out.

    Raises:
        ValueError: `asked` has cuda-graph, and the device is a CPU; or nothing is left to measure.
    """
    left_out = []
    modes = list(dict.fromkeys(asked or MODES))
    if device.type != "cuda" and "cuda-graph" in modes:
        if asked:
            raise ValueError(
                "--modes has cuda-graph, but the device is a CPU, which has no CUDA graphs; leave it out"
            )
        modes.remove("cuda-graph")
        left_out.append(NO_GRAPH)
    if modes == ["cuda-graph"] and kinds == ["training_step"]:
        raise ValueError(
            "--modes is cuda-graph, in which the training step cannot run; add eager or compiled"
        )
    if "training_step" in kinds and "cuda-graph" in modes:
        left_out.append(NO_TRAINING_GRAPH)
    return modes, left_out


if __name__ == "__main__":
    main()

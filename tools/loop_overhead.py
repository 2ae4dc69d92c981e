"""Measure what the trainers' loop adds to a step of a tiny network, beside a bare loop of PyTorch.

    python -m tools.loop_overhead --output results/benchmarks/loop_cpu.json

A real run of the trainer in a folder that is thrown away. Between its steps (on a GPU: blocks of steps, at
the end of which it is waited for) as many of the bare loop, on a network of its own, are taken and timed, so
that a disturbance of the machine hits both.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from engine.amp import Precision
from engine.config.experiment import Experiment
from engine.data.classes import Classes, numbered
from engine.data.device import normalize
from engine.evaluation import Evaluation
from engine.processes import distributed
from engine.processes.preemption import StopRequest
from engine.processes.program import errors_told_by
from engine.runs.folder import RunFolder
from engine.runs.run import Run
from engine.tasks.classification import Batch, Classification
from engine.training.loop import Plan
from engine.training.optimizer import OptimizerOptions
from engine.training.origin import Origin
from engine.training.state import new_state
from models import activation_factory, build_classifier, is_activation
from pwlu import ReplacementReport, fuse_batch_norm
from pwlu_ext.benchmarks.measure import environment, write_record
from tools.records import add_record_option, positive, tool_parser

NUM_CLASSES = 10
LEARNING_RATE = 1e-3
WARM_UP_STEPS = 20
OPTIONS = OptimizerOptions(peak_lr=LEARNING_RATE, weight_decay=1e-4)


@dataclass
class Interleaved(Classification):
    """Classification of one batch over and over; after each block of steps `bare_step` is taken as often.

    Attributes:
        seconds: of a step of the loop and of a bare one, by block.
    """

    batch: Batch = (torch.empty(0), torch.empty(0))
    bare_step: Callable[[], object] = lambda: None
    block: int = 1
    seconds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def classes(self) -> Classes:
        return numbered(NUM_CLASSES, "random numbers")

    def facts(self) -> dict[str, int]:
        return {}

    def describe(self) -> str:
        return "random numbers"

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
        while True:
            moments = [time.perf_counter()]
            for _ in range(self.block):
                yield [self.batch]
            moments.append(self._moment())
            for _ in range(self.block):
                self.bare_step()
            moments.append(self._moment())
            loop, bare = (later - earlier for earlier, later in pairwise(moments))
            self.seconds.append((loop / self.block, bare / self.block))

    def _moment(self) -> float:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation:
        return Evaluation({self.main_metric: 0.0})


def network(name: str, size: int, device: torch.device) -> nn.Module:
    """Return a network with PWLUs, in training as the trainers have it."""
    torch.manual_seed(0)
    model, _ = build_classifier(
        name, activation_factory("pwlu"), num_classes=NUM_CLASSES, input_size=(3, size, size)
    )
    model.to(device)
    fuse_batch_norm(model, input_size=(3, size, size))
    return model


def bare_loop(model: nn.Module, batch: Batch, device: torch.device) -> Callable[[], None]:
    """Return a step as one would write it without a trainer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, fused=True)

    def step() -> None:
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        loss = F.cross_entropy(model(normalize(images, torch.contiguous_format)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the record."""
    torch.set_num_threads(arguments.threads)
    world = distributed.start(arguments.device)
    size, count, device = arguments.image_size, arguments.batch_size, world.device
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8)
    labels = torch.randint(NUM_CLASSES, (count,))
    batch = (images, labels) if device.type == "cpu" else (images.pin_memory(), labels.pin_memory())
    block = 1 if device.type == "cpu" else WARM_UP_STEPS
    steps = WARM_UP_STEPS + arguments.steps
    precision = Precision("off", device)
    task = Interleaved(
        data=None,  # type: ignore[arg-type]  # random numbers instead
        world=world,
        precision=precision,
        global_batch_size=count,
        device_batch_size=count,
        batch=batch,
        bare_step=bare_loop(network(arguments.model, size, device), batch, device),
        block=block,
    )
    model = network(arguments.model, size, device)
    state = new_state(model, precision, OPTIONS, is_activation=is_activation, phase1_steps=0)
    plan = Plan(
        total_steps=steps,
        steps_per_epoch=steps,
        images_per_step=count,
        log_every_steps=arguments.log_every_steps,
        checkpoint_every_steps=steps,
        eval_every_steps=steps,
        plot_every_steps=steps,
    )
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        run = Run(RunFolder(Path(folder)), Experiment({}, {}, ""), world, stop)
        run.train(
            task,
            state,
            plan,
            lambda step: LEARNING_RATE,
            options=OPTIONS,
            seed=0,
            origin=Origin(ReplacementReport((), 0, 0)),
        )
    loop, bare = zip(*task.seconds[WARM_UP_STEPS // block :], strict=True)
    return {
        "benchmark": "loop_overhead",
        "arguments": {name: value for name, value in vars(arguments).items() if name != "output"},
        "environment": environment(device),
        "milliseconds": {"loop": 1e3 * statistics.median(loop), "bare": 1e3 * statistics.median(bare)},
        "ratio": statistics.median(one / other for one, other in zip(loop, bare, strict=True)),
    }


def page(record: dict[str, Any]) -> str:
    """Return the page that lies beside a record."""
    arguments, found, times = record["arguments"], record["environment"], record["milliseconds"]
    size, code, processor = (
        arguments["image_size"],
        found["commit"][:10],
        found.get("gpu", found["processor"]),
    )
    return f"""<!-- Generated by tools.loop_overhead from the record beside it. -->
# What the loop adds to a step

{arguments["model"]}, {arguments["batch_size"]} x 3 x {size} x {size}: {times["bare"]:.2f} ms in a bare \
loop, {times["loop"]:.2f} ms in the trainers', **{record["ratio"]:.3f}** times it, the median of the ratios \
of {arguments["steps"]} steps of each, with a line of the log every {arguments["log_every_steps"]}.

{processor}, threads: {arguments["threads"]}, torch {found["torch"]}, commit {code}, {found["date"]}.
"""


def main() -> None:
    """Measure what the command line names; write and print the page."""
    parser = tool_parser("loop_overhead", __doc__)
    add_record_option(parser)
    parser.add_argument("--model", default="test_resnet", help="timm's name (test_resnet, a step of some ms)")
    parser.add_argument("--image-size", type=positive, default=32, help="in pixels (32)")
    parser.add_argument("--batch-size", type=positive, default=8, help="(8)")
    parser.add_argument("--steps", type=positive, default=500, help="that count (500)")
    parser.add_argument("--log-every-steps", type=positive, default=50, help="(50)")
    choices = ("auto", "cpu", "cuda")
    parser.add_argument(
        "--device", choices=choices, default="cpu", help="auto: a GPU where there is one (cpu)"
    )
    parser.add_argument("--threads", type=positive, default=1, help="of the CPU (1)")
    arguments = parser.parse_args()
    with errors_told_by(parser):
        record = measure(arguments)
        write_record(arguments.output, record, page(record))


if __name__ == "__main__":
    main()

"""A family is one model with all activation functions in all runtimes."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.amp import Precision
from engine.processes.distributed import World
from engine.records.console import say
from pwlu_ext.benchmarks.measure import (
    Call,
    Clock,
    allocated_bytes,
    clock_of,
    interleaved_times,
    peak_mib,
    percentiles_ms,
)
from pwlu_ext.benchmarks.page import Row
from tools.latency.networks import NUM_CLASSES, inference_networks, training_form
from tools.latency.runtimes import RUNTIMES, is_out_of_memory, onnx_file, prepare
from tools.latency.table import KINDS
from tools.latency.training import FUSED, training_steps
from tools.latency.training import RUNTIMES as TRAINING_RUNTIMES

Key = tuple[str, str]  # the row's name and the runtime
Network = tuple[str, dict[str, nn.Module], Tensor]  # the row's name, the networks by form, what they return
PROGRESS_LINES = 10


class Arguments(argparse.Namespace):
    """The command line of tools.latency."""

    output: Path
    models: list[str]
    activations: list[str]
    runtimes: list[str]
    batch_size: int
    image_size: int
    iterations: int
    warm_up: int
    dtype: str
    channels_last: bool
    device: str
    threads: int | None
    training_step: str | None
    training_batch_size: int
    training_amp: str

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def random_images(self, batch_size: int, device: torch.device) -> torch.Tensor:
        """Return normal random numbers (batch_size, 3, H, W), float32."""
        images = torch.randn((batch_size, 3, self.image_size, self.image_size), device=device)
        return images.contiguous(memory_format=self.memory_format)


def measure_family(kind: str, model: str, arguments: Arguments, world: World) -> list[Row]:
    """Return the rows of one model, of which nothing stays in memory; `kind` is one of KINDS.

    Raises:
        ValueError: a runtime that a network cannot run in, or not enough memory.
    """
    title = f"{model}, {KINDS[kind]}"
    say(title)
    try:
        return [{"model": model} | row for row in _measure(kind, model, arguments, world, title)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"{title}: the memory of the {world.device.type} does not suffice; take a smaller "
            f"--{'' if kind == 'inference' else 'training-'}batch-size or fewer --activations"
        ) from error
    finally:
        onnx_file.cache_clear()
        _give_back_memory(world.device)


def _measure(kind: str, model: str, arguments: Arguments, world: World, title: str) -> list[Row]:
    clock = clock_of(world.device)
    if kind == "training_step":
        return _rows(title, partial(training_calls, model, arguments, world), arguments, clock)
    images = arguments.random_images(arguments.batch_size, world.device).to(getattr(torch, arguments.dtype))
    networks = list(networks_to_run(model, arguments, images))
    rows: list[Row] = []
    for runtime in arguments.runtimes:  # all at once would not fit into memory
        make = partial(inference_calls, runtime, networks, images)
        rows += _rows(f"{title}, {runtime}", make, arguments, after_itself(clock))
        _give_back_memory(world.device)
    return rows


def _give_back_memory(device: torch.device) -> None:
    torch.compiler.reset()  # it refers to what it compiled
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _rows(
    title: str, make: Callable[[], tuple[dict[Key, Call], dict[Key, Row]]], arguments: Arguments, clock: Clock
) -> list[Row]:
    """Return the rows of calls that `make` returns, with what it knows of each. They are gone afterwards."""
    calls, more = make()
    times = interleaved_times(
        calls,
        rounds=arguments.iterations,
        warm_up=arguments.warm_up,
        clock=clock,
        progress=rounds_left(title, arguments.warm_up + arguments.iterations),
    )
    return [
        {"activation": row, "runtime": runtime}
        | summarize(times[row, runtime], times["relu", runtime])
        | more[row, runtime]
        for row, runtime in calls
    ]


def after_itself(clock: Clock) -> Clock:
    """Return a clock that makes a call twice, and times the second, as in a program that serves.

    The threads of the runtime before have come to rest then, and the caches hold this network.
    """

    def warm(call: Call) -> float:
        call()
        return clock(call)

    return warm


def summarize(times: list[float], baseline: list[float]) -> dict[str, float]:
    """Return percentiles in milliseconds, and the median of the ratios to the baseline of the same round."""
    p10, p50, p90 = percentiles_ms(times)
    ratio = statistics.median(time / base for time, base in zip(times, baseline, strict=True))
    values = {"p50_ms": p50, "p10_ms": p10, "p90_ms": p90, "ratio_to_relu": ratio}
    return {name: round(value, 4) for name, value in values.items()}


def networks_to_run(model: str, arguments: Arguments, images: Tensor) -> Iterator[Network]:
    """Yield every row's name and network in all forms that runtimes take, on the device of the images.

    With them what the network computes of the images as it is trained, in eager mode.
    """
    forms = sorted({RUNTIMES[runtime].form for runtime in arguments.runtimes})
    for activation in dict.fromkeys(arguments.activations):
        trained = training_form(model, activation, arguments.image_size)
        rows = list(inference_networks(trained, activation, arguments.image_size, forms))
        for network in (trained, *(network for _, networks in rows for network in networks.values())):
            network.to(images.device, images.dtype).to(memory_format=arguments.memory_format)
        with torch.no_grad():
            expected = trained(images)
        for row, networks in rows:
            yield row, networks, expected


def inference_calls(
    runtime: str, networks: Sequence[Network], images: Tensor
) -> tuple[dict[Key, Call], dict[Key, Row]]:
    """Return the calls of all networks in a runtime.

    With them, how far their outputs are from those of the network as it is trained, relative to the range of
    the latter.
    """
    form, make = RUNTIMES[runtime].form, RUNTIMES[runtime].prepare
    calls: dict[Key, Call] = {}
    more: dict[Key, Row] = {}
    for row, by_form, expected in networks:
        if form in by_form:
            calls[row, runtime] = call = prepare(runtime, row, partial(make, by_form[form], images))
            more[row, runtime] = {"difference": relative_difference(call(), expected)}
    return calls, more


def relative_difference(output: Any, expected: Any) -> float:
    """Return the largest distance between two outputs, relative to the range of the second."""
    actual, wanted = (torch.as_tensor(values).double().cpu() for values in (output, expected))
    return ((actual - wanted).abs().max() / (wanted.max() - wanted.min())).item()


def training_calls(model: str, arguments: Arguments, world: World) -> tuple[dict[Key, Call], dict[Key, Row]]:
    """Return the training steps of all networks of a model on one batch of random images and labels.

    With them, in MiB, what each keeps for the backward pass, and the GPU memory that it takes at its worst
    moment (not on a CPU): its network, gradients, optimizer and activations, without the other networks and
    the batch.
    """
    images = arguments.random_images(arguments.training_batch_size, world.device)
    labels = torch.randint(NUM_CLASSES, (len(images),), device=world.device)
    calls: dict[Key, Call] = {}
    memory: dict[Key, Row] = {}
    runtimes = [name for name in arguments.runtimes if name in TRAINING_RUNTIMES]
    rows = dict.fromkeys(arguments.activations)
    for row in (*rows, *([FUSED] if "pwlu" in rows else [])):
        others = allocated_bytes(world.device)
        steps, kept = training_steps(
            model,
            row,
            (images, labels),
            runtimes=runtimes,
            precision=Precision(arguments.training_amp, world.device),
            world=world,
            memory_format=arguments.memory_format,
        )
        calls |= {(row, runtime): call for runtime, call in steps.items()}
        for runtime, call in steps.items():
            memory[row, runtime] = {"kept_mib": round(kept, 1)}
            if others is not None:
                memory[row, runtime]["peak_memory_mib"] = peak_mib(call, others)
    return calls, memory


def rounds_left(title: str, total: int) -> Callable[[int], None]:
    """Return what says every tenth of `total` rounds how many minutes are left."""
    began = time.perf_counter()
    every = max(1, total // PROGRESS_LINES)

    def progress(finished: int) -> None:
        if finished % every == 0:
            minutes = (time.perf_counter() - began) / finished * (total - finished) / 60
            say(f"  {title}: round {finished} of {total}, {minutes:.1f} min left")

    return progress

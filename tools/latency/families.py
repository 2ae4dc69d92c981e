"""What tools.latency compares: a family is one model with all activations in all modes, run in turns."""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from engine.amp import Precision
from engine.processes.distributed import World
from engine.records.console import say
from tools.latency import training as latency_training
from tools.latency.clock import Call, clock_of, interleaved_times, summarize
from tools.latency.memory import peak_mib, settled_bytes
from tools.latency.networks import MODES, NUM_CLASSES, inference_networks, is_out_of_memory, prepare

Key = tuple[str, str]  # the row's name and the mode
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROGRESS_LINES = 10


def measure_family(
    kind: str, model: str, arguments: argparse.Namespace, modes: Sequence[str], world: World
) -> list[dict[str, Any]]:
    """Return the rows of one model; `kind` is "inference" or "training_step".

    Nothing of it is left in memory afterwards.

    Raises:
        ValueError: a mode that a network cannot run in, or not enough memory.
    """
    title = f"{model}, {kind.replace('_', ' ')}"
    say(title)
    try:
        times, peaks = _measure_together(kind, model, arguments, modes, world, title)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"{title}: the memory of the {world.device.type} does not suffice; take a smaller "
            f"--{'' if kind == 'inference' else 'training-'}batch-size or fewer --activations"
        ) from error
    finally:
        release(world.device)
    return [
        {"model": model, "activation": row, "mode": mode, **summarize(seconds, times["relu", mode])}
        | ({"peak_memory_mib": peaks[row, mode]} if (row, mode) in peaks else {})
        for (row, mode), seconds in times.items()
    ]


def _measure_together(
    kind: str, model: str, arguments: argparse.Namespace, modes: Sequence[str], world: World, title: str
) -> tuple[dict[Key, list[float]], dict[Key, float]]:
    """Return the times in seconds and the peaks of memory; the networks are gone once this has returned."""
    build = inference_calls if kind == "inference" else training_calls
    calls, peaks = build(model, arguments, modes, world)
    times = interleaved_times(
        calls,
        iterations=arguments.iterations,
        warm_up=arguments.warm_up,
        clock=clock_of(world.device),
        progress=rounds_left(title, arguments.warm_up + arguments.iterations),
    )
    return times, peaks


def inference_calls(
    model: str, arguments: argparse.Namespace, modes: Sequence[str], world: World
) -> tuple[dict[Key, Call], dict[Key, float]]:
    """Return the calls of all networks of a model on one batch of random images, and no peaks of memory."""
    dtype, layout = DTYPES[arguments.dtype], memory_format(arguments)
    images = random_images(arguments.batch_size, arguments, world).to(dtype)
    calls: dict[Key, Call] = {}
    for row, network in inference_networks(model, arguments.activations, arguments.image_size):
        network.to(world.device, dtype).to(memory_format=layout)
        for mode in modes:
            calls[row, mode] = prepare(mode, row, partial(MODES[mode], network, images))
    return calls, {}


def training_calls(
    model: str, arguments: argparse.Namespace, modes: Sequence[str], world: World
) -> tuple[dict[Key, Call], dict[Key, float]]:
    """Return the training steps of all networks of a model on one batch of random images and labels.

    With them the GPU memory in MiB that each takes at its worst moment (nothing on a CPU): its network,
    gradients, optimizer and activations, without the other networks and the batch.
    """
    images = random_images(arguments.training_batch_size, arguments, world)
    labels = torch.randint(NUM_CLASSES, (len(images),), device=world.device)
    calls: dict[Key, Call] = {}
    peaks: dict[Key, float] = {}
    for activation in dict.fromkeys(arguments.activations):
        others = settled_bytes(world.device)
        steps = latency_training.training_steps(
            model,
            activation,
            (images, labels),
            modes=[mode for mode in modes if mode in latency_training.MODES],
            precision=Precision(arguments.training_amp, world.device),
            world=world,
            memory_format=memory_format(arguments),
        )
        calls |= {(activation, mode): call for mode, call in steps.items()}
        if others is not None:
            peaks |= {(activation, mode): peak_mib(call, others) for mode, call in steps.items()}
    return calls, peaks


def memory_format(arguments: argparse.Namespace) -> torch.memory_format:
    """Return the layout of weights and images."""
    return torch.channels_last if arguments.channels_last else torch.contiguous_format


def random_images(batch_size: int, arguments: argparse.Namespace, world: World) -> torch.Tensor:
    """Return normal random numbers (batch_size, 3, H, W), float32."""
    size = (batch_size, 3, arguments.image_size, arguments.image_size)
    return torch.randn(size, device=world.device).contiguous(memory_format=memory_format(arguments))


def rounds_left(
    title: str, total: int, clock: Callable[[], float] = time.perf_counter
) -> Callable[[int], None]:
    """Return what prints a line every tenth of `total` rounds, with the minutes that are left."""
    began = clock()
    every = max(1, total // PROGRESS_LINES)

    def progress(finished: int) -> None:
        if finished % every == 0:
            minutes = (clock() - began) / finished * (total - finished) / 60
            say(f"  {title}: round {finished} of {total}, {minutes:.1f} min left")

    return progress


def release(device: torch.device) -> None:
    """Give back the memory of networks that nothing refers to any more, compiled ones too."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()

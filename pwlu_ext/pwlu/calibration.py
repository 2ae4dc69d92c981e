"""Boundaries for a network that is already trained, from forward passes without training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .calibration_checks import check_arguments, checked_sites, unwrapped
from .calibration_report import CalibrationReport, output_changes, site_report
from .evaluation import evaluation_mode
from .module import PWLU
from .processes import all_reduce
from .realignment import realign
from .remarks import has_statistics, shown_names, warn_about
from .running_statistics import take_step
from .sharding import reshard
from .statistics import StepStatistics

Forward = Callable[[nn.Module, Any], Any]
T = TypeVar("T")


@torch.inference_mode(False)
@torch.no_grad()
def calibrate(
    model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None
) -> CalibrationReport:
    """Set the boundaries of every PWLU to the input that it has in `batches`, without training.

    For a trained network whose activations became PWLUs by `replace_activations(model, init="replaced")`:

        print(pwlu.calibrate(model, itertools.islice(loader, 20)))

    The batches pass through the model in eval mode, while every PWLU is its starting function, exactly. The
    mean and standard deviation of each function's input, over all batches and processes, give the boundaries
    (Eq. 6: mean +- 3 std); points and slopes become the starting function on them. Then the model is ready
    for training without a phase I.

    Nothing else changes: not training flags, gradients, other buffers (BatchNorm) or torch's generators. If
    an error is raised, the model is as it was. With torch.distributed every process has to call it; numbers
    of batches may differ, except under FSDP2.

    Args:
        model: any module with a PWLU; wrapped or compiled ones are run without their wrapper, and eagerly.
        batches: inputs, or tuples or lists that begin with the input, as a DataLoader yields them; each input
            is moved to the model's device. A few hundred images are enough.
        forward: called as `forward(model, batch)` for models or batches of another kind, e.g.
            `lambda model, batch: model(**batch.to("cuda"))`; `model` comes without a wrapper.

    Raises:
        ValueError: there is no PWLU or no batch; a batch is of another kind; a PWLU is in phase I, has
            learned already, or had input that is not finite; or FullyShardedDataParallel (FSDP1) or ZeRO-3
            has cut the parameters up.
        RuntimeError: another process has raised an error.

    Warns:
        UserWarning: sites had no input; they stay as they were.
    """
    inner = unwrapped(model)
    reshard(inner)
    sites = checked_sites(inner)
    check_arguments(batches, forward)
    call = partial(forward or _forward_first, inner)
    device = next(iter(sites.values())).running_mean.device
    with _kept_on_error(inner, sites), _generators_kept(device), _eagerly():
        with _collecting(sites):
            with evaluation_mode(inner):  # for the passes alone: it restores all buffers, the PWLUs' too
                number, first, before = _together(partial(_pass_all, call, batches), device)
            (num_batches,) = _over_ranks("SUM", device, number)
            if num_batches == 0:
                raise ValueError("`batches` has no batch in it; an iterator can be read only once")
            reshard(inner)
            calibrated = _realign_all(sites)
        with evaluation_mode(inner):
            after = _together(lambda: call(first) if number else None, device)
        change, largest = _over_ranks("MAX", device, *output_changes(before, after))
        silent = [name for name, has_input in calibrated.items() if not has_input]
        warn_about(silent, "no input (or only zeros) in the batches, so no calibration: it stays as it was.")
    return CalibrationReport(
        tuple(site_report(name, site, calibrated[name]) for name, site in sites.items()),
        int(num_batches),
        None if change < 0 else change,
        None if change < 0 else largest,
    )


def _forward_first(model: nn.Module, batch: Any) -> Any:
    x = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(x, Tensor):
        found = type(batch).__name__ + ("" if x is batch else f" that begins with a {type(x).__name__}")
        raise ValueError(
            f"a batch must be a tensor, or a tuple or list that begins with one, but is a {found}; give "
            "`forward`, e.g. forward=lambda model, batch: model(**batch)"
        )
    return model(x.to(next(model.parameters()).device))


def _pass_all(call: Callable[[Any], Any], batches: Iterable[Any]) -> tuple[int, Any, Any]:
    """Return the number of batches, the first of them, and the model's outputs for it."""
    number, first, outputs = 0, None, None
    for number, batch in enumerate(batches, 1):
        if number == 1:  # copies, since a loader or a model may write into them
            first = _copied(batch)
            outputs = _copied(call(batch))
        else:
            call(batch)
    return number, first, outputs


def _copied(tensors: Any) -> Any:
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, tensors)


def _realign_all(sites: Mapping[str, PWLU]) -> dict[str, bool]:
    """Set statistics and boundaries; return for every site whether it had input."""
    former = {name: (site.running_mean.clone(), site.running_std.clone()) for name, site in sites.items()}
    for site in sites.values():
        site.running_mean.zero_()  # so that the step sets the statistics
        site.running_std.zero_()
    left_out = take_step(list(sites.values()), None).tolist()
    spoilt = [name for name, was in zip(sites, left_out, strict=True) if was]
    if spoilt:
        raise ValueError(
            f"PWLU {shown_names(spoilt)}: the input held a value that is not finite, or too large to be "
            "squared in float32"
        )
    calibrated = {name: has_statistics(site) for name, site in sites.items()}
    for name, site in sites.items():
        if not calibrated[name]:
            site.running_mean.copy_(former[name][0])
            site.running_std.copy_(former[name][1])
    realign({name: site for name, site in sites.items() if calibrated[name]})
    return calibrated


@contextmanager
def _collecting(sites: Mapping[str, PWLU]) -> Iterator[None]:
    """Let the PWLUs be their starting functions and collect statistics."""
    for site in sites.values():
        site.statistics = StepStatistics(site.running_mean, in_evaluation=True)
    try:
        yield
    finally:
        for site in sites.values():
            site.statistics = None


@contextmanager
def _kept_on_error(model: nn.Module, sites: Mapping[str, PWLU]) -> Iterator[None]:
    tensors = [t for site in sites.values() for t in (*site.parameters(), *site.buffers())]
    former = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        reshard(model)
        for tensor, value in zip(tensors, former, strict=True):
            tensor.copy_(value)
        raise


def _generators_kept(device: torch.device) -> AbstractContextManager[Any]:
    # Loaders draw from them, and some models do.
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _eagerly() -> AbstractContextManager[Any]:
    # Nothing is compiled for these passes alone.
    is_used = "torch._dynamo" in sys.modules  # slow to import
    return torch.compiler.set_stance("force_eager") if is_used else nullcontext()


def _over_ranks(operation: str, device: torch.device, *values: float) -> list[float]:
    """Return the "SUM" or "MAX" of each value over all processes."""
    return all_reduce(torch.tensor(values, device=device), operation).tolist()


def _together(run: Callable[[], T], device: torch.device) -> T:
    """Return what `run` returns; if it raises on one process, raise on all: the others would wait for it."""
    try:
        result = run()
    except Exception:
        _over_ranks("SUM", device, 1)
        raise
    if _over_ranks("SUM", device, 0)[0]:
        raise RuntimeError("pwlu.calibrate: another process has raised an error; see what it says")
    return result

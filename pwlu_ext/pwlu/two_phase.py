"""The paper's learning method (section 3.3, Fig. 4): ReLU and statistics first, then realigned boundaries."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .module import PWLU
from .statistics import StepStatistics

MOMENTUM = 0.1  # the weight of the newest step in Eq. 5
SIGMAS = 3.0  # the "3-sigma rule" of Eq. 6


class TwoPhaseLearning:
    """Take every PWLU of a model through phase I and phase II, counted in optimizer steps.

    Phase I (steps 0 to T' - 1): every PWLU is ReLU, its parameters do not move, and the mean and standard
    deviation of its input are collected (Eq. 5) over everything that reached it in a step, on all ranks.
    After step T' - 1 the boundaries are reset to mean +- 3 std and the points to ReLU (Eq. 6). Phase II:
    everything learns. Construct it on every rank, after the model is on its device:

        phases = TwoPhaseLearning(model, phase1_steps=5 * steps_per_epoch, optimizer=optimizer)

    The loop stays as it is: `optimizer.step` makes the two calls itself, and a step that a GradScaler skips
    does not count (details: the package's README). Without `optimizer` the loop makes the calls, and every
    pair of them counts, skipped step or not:

        loss(model(x), target).backward()
        phases.before_optimizer_step()
        optimizer.step()
        phases.after_optimizer_step()

    Args:
        model: any module; one without a PWLU is always in phase II.
        phase1_steps: the paper's T' in optimizer steps. 0 means no phase I (the paper's fix-init). A positive
            number resets every PWLU to its initial ReLU.
        optimizer: the one whose steps are counted; copied or pickled with the phases, its copy drives theirs.
        process_group: over which statistics are reduced; the default group if torch.distributed is
            initialised.

    Raises:
        ValueError: phase1_steps is no non-negative integer; the optimizer's `step` calls no hooks; or another
            TwoPhaseLearning has the model in phase I.
    """

    def __init__(
        self,
        model: nn.Module,
        phase1_steps: int,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if isinstance(phase1_steps, bool) or not isinstance(phase1_steps, int) or phase1_steps < 0:
            raise ValueError(f"`phase1_steps` must be an integer >= 0, but is {phase1_steps!r}.")
        self.phase1_steps = phase1_steps
        self.step_count = 0
        self._optimizer = optimizer
        self._process_group = process_group
        self._sites = {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}
        if optimizer is not None:
            _check_optimizer(optimizer, self._sites)
        if phase1_steps > 0:
            for site in self._sites.values():
                site.reset_parameters()
        self._start_or_stop_collecting()
        self._register_hooks()

    @property
    def phase(self) -> int:
        """1 while PWLUs are ReLU and statistics are collected, 2 from the realignment on."""
        return 1 if self._sites and self.step_count < self.phase1_steps else 2

    def before_optimizer_step(self) -> None:
        """Call between ``backward`` and ``optimizer.step`` (after ``scaler.unscale_``, before clipping).

        Raises:
            RuntimeError: the optimizer that was given calls this itself.
        """
        self._check_calls_are_explicit()
        self._drop_gradients()

    def after_optimizer_step(self) -> bool:
        """Call after every ``optimizer.step``. Return True once: at the step that realigned the boundaries.

        Raises:
            RuntimeError: an input's statistics are not finite at the end of phase I, or the optimizer that
                was given calls this itself.
        """
        self._check_calls_are_explicit()
        return self._count_step()

    def state_dict(self) -> dict[str, int]:
        """Return plain integers for a checkpoint between steps; the statistics are buffers of the model."""
        return {"step_count": self.step_count, "phase1_steps": self.phase1_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken. The model's own state is loaded separately, in any order.

        Raises:
            ValueError: the state is of a schedule with another length of phase I.
        """
        if state["phase1_steps"] != self.phase1_steps:
            raise ValueError(
                f"the saved schedule has phase1_steps={state['phase1_steps']}, this one {self.phase1_steps}. "
                "Resume with the configuration that the checkpoint was made with."
            )
        self.step_count = state["step_count"]
        self._start_or_stop_collecting()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Neither PWLUs nor optimizers take these along when they are copied or pickled.
        self.__dict__.update(state)
        self._start_or_stop_collecting()
        self._register_hooks()

    def _register_hooks(self) -> None:
        if self._optimizer is not None:
            self._optimizer.register_step_pre_hook(self._before_step_hook)
            self._optimizer.register_step_post_hook(self._after_step_hook)

    def _before_step_hook(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._drop_gradients()
        # A closure computes gradients within the step, after this hook.
        kwargs = {name: self._without_gradients(value) for name, value in kwargs.items()}
        return (*args[:1], *map(self._without_gradients, args[1:])), kwargs

    def _without_gradients(self, argument: Any) -> Any:
        """Return a closure that also drops the gradients; return what is no closure as it is."""
        if not callable(argument):
            return argument

        def closure() -> Any:
            loss = argument()
            self._drop_gradients()
            return loss

        return closure

    def _after_step_hook(self, *args: Any) -> None:
        self._count_step()

    def _check_calls_are_explicit(self) -> None:
        if self._optimizer is not None:
            raise RuntimeError(
                "TwoPhaseLearning was given the optimizer, whose step() makes this call itself. Remove the "
                "call, or construct TwoPhaseLearning without `optimizer`."
            )

    def _drop_gradients(self) -> None:
        # A gradient of zero would not do: weight decay and momentum move a parameter that has one. Toggling
        # requires_grad would not do either: DistributedDataParallel has noted at its construction which
        # parameters to reduce.
        if self.phase == 1:
            for site in self._sites.values():
                for parameter in site.parameters(recurse=False):
                    parameter.grad = None

    def _count_step(self) -> bool:
        """Return True if phase I ends with this step."""
        was_phase1 = self.phase == 1
        if was_phase1:
            self._fold_statistics()
        self.step_count += 1
        realigned = was_phase1 and self.phase == 2
        if realigned:
            for name, site in self._sites.items():
                _realign(name, site)
            self._start_or_stop_collecting()
        return realigned

    def _start_or_stop_collecting(self) -> None:
        for site in self._sites.values():
            site.statistics = StepStatistics(site.left) if self.phase == 1 else None

    @torch.no_grad()
    def _fold_statistics(self) -> None:
        # Eq. 5 with the step's statistics of all ranks
        sites = list(self._sites.values())
        collected = [site.statistics for site in sites if site.statistics is not None]
        count, mean, std = _over_ranks(
            torch.cat([s.count.expand_as(s.mean) for s in collected]),
            torch.cat([s.mean for s in collected]),
            torch.cat([s.deviation for s in collected]),
            self._process_group,
        )
        sizes = [site.num_parameters for site in sites]
        new = zip(sites, count.split(sizes), mean.split(sizes), std.split(sizes), strict=True)
        for site, site_count, site_mean, site_std in new:
            _move_running_statistics(site, site_count, site_mean, site_std)
        for statistics in collected:
            statistics.clear()


def _check_optimizer(optimizer: torch.optim.Optimizer, sites: dict[str, PWLU]) -> None:
    # Wrappers may inherit from Optimizer without having their `step` wrapped by its constructor.
    if not isinstance(optimizer, torch.optim.Optimizer) or not getattr(type(optimizer).step, "hooked", False):
        raise ValueError(
            f"`optimizer` must be a torch.optim.Optimizer whose step() calls its hooks, but is a "
            f"{type(optimizer).__name__}. Leave it out and call before_optimizer_step() and "
            f"after_optimizer_step() around its step()."
        )
    for name, site in sites.items():
        if site.statistics is not None:
            raise ValueError(
                f"PWLU '{name}' is in phase I of another TwoPhaseLearning, which may still end it. "
                "Build the model anew."
            )


def _over_ranks(
    count: Tensor, mean: Tensor, deviation: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, mean and (biased) standard deviation of all ranks' elements, NaN where there are none."""
    # Two reductions, the second one of deviations around the common mean: squares would cancel.
    distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
    sums = torch.stack([count, count * mean])
    if distributed:
        dist.all_reduce(sums, group=group)
    total, common_mean = sums[0], sums[1] / sums[0]
    squares = torch.where(count > 0, deviation + count * (mean - common_mean) ** 2, 0)
    if distributed:
        dist.all_reduce(squares, group=group)
    return total, common_mean, (squares / total).sqrt()


def _move_running_statistics(site: PWLU, count: Tensor, mean: Tensor, std: Tensor) -> None:
    # Eq. 5, in place. Without input nothing changes. The first input sets the statistics: a start from 0
    # would bias short runs.
    is_first = (site.running_mean == 0) & (site.running_std == 0)
    weight = torch.where(is_first, 1.0, MOMENTUM)
    for running, new in ((site.running_mean, mean), (site.running_std, std)):
        running.copy_(torch.where(count > 0, running + weight * (new - running), running))


def _realign(name: str, site: PWLU) -> None:
    # Eq. 6. A function whose input did not vary (a dead channel) keeps its width, around the mean.
    mean, std = site.running_mean, site.running_std
    if not bool((mean.isfinite() & std.isfinite()).all()):
        raise RuntimeError(
            f"PWLU '{name}': the statistics of its input are not finite at the end of phase I."
        )
    varied = std > 1e-6 * mean.abs().clamp(min=1)
    half_width = torch.where(varied, SIGMAS * std, site.bound)
    site.reset_to_relu(mean - half_width, mean + half_width)

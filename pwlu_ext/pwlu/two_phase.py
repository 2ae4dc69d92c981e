"""The paper's learning method (section 3.3, Fig. 4): statistics first, then realigned boundaries."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from .module import PWLU
from .realignment import check_whole, realign
from .remarks import Remarks, find_sites
from .running_statistics import take_step
from .sharding import is_sharded, reshard
from .statistics import StepStatistics


class TwoPhaseLearning:
    """Take every PWLU of a model through phase I and phase II, counted in optimizer steps.

    Phase I (steps 0 to T' - 1): every PWLU is its starting function, its parameters do not move, and the mean
    and standard deviation of its input are collected (Eq. 5) over everything that reached it in a step, on
    all ranks. After step T' - 1 the boundaries are reset to mean +- 3 std and the points to the starting
    function (Eq. 6). Phase II: everything learns. A step whose input to a PWLU is not finite, on any rank,
    has no part in that one's statistics. Construct it on every rank, after the model is on its device:

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
            number resets every PWLU to its starting function.
        optimizer: the one whose steps are counted; copied or pickled with the phases, its copy drives theirs.
        process_group: over which statistics are reduced; the default group if torch.distributed is
            initialised.

    Raises:
        ValueError: phase1_steps is no non-negative integer; the optimizer's `step` calls no hooks; another
            TwoPhaseLearning has the model in phase I; or FullyShardedDataParallel (FSDP1) or ZeRO-3 has cut
            the parameters up.

    Warns:
        UserWarning: a site had input that is not finite; at the realignment, a site had no input; at the
            first step, a site is not what it starts as. Once, by the group's first process.
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
        self._is_first_step = True
        self._sites = find_sites(model)
        self._remarks = Remarks(model, self._sites, process_group)
        if optimizer is not None:
            _check_optimizer(optimizer, self._sites)
        if phase1_steps > 0:
            reshard(model)  # an evaluation may have put parameters together
            check_whole(self._sites)
            for site in self._sites.values():
                site.reset_parameters()
        self._start_or_stop_collecting()
        self._register_hooks()

    @property
    def phase(self) -> int:
        """1 while PWLUs stay as they start and statistics are collected, 2 from the realignment on."""
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
            RuntimeError: the optimizer that was given calls this itself.
            ValueError: a starting function is not finite between the new boundaries; phase I goes on.
        """
        self._check_calls_are_explicit()
        return self._count_step()

    def state_dict(self) -> dict[str, int]:
        """Return plain integers for a checkpoint between steps; the statistics are buffers of the model."""
        self._remarks.tell_left_out()
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

    def _after_step_hook(self, optimizer: torch.optim.Optimizer, *args: Any) -> None:
        # torch.distributed.checkpoint makes the optimizer's state by a step with a learning rate of 0.
        called = any(site.statistics.was_called for site in self._sites.values() if site.statistics)
        rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
        if self.phase == 2 or called or any(rates):
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
        if self.phase == 2:
            self.step_count += 1
            return False
        if self._is_first_step:
            check_whole(self._sites)
            self._remarks.before_first_step()
            self._is_first_step = False
        left_out = take_step(list(self._sites.values()), self._process_group)
        realigned = self.step_count + 1 == self.phase1_steps
        if realigned:
            realign(self._sites)
            for site in self._sites.values():
                site.statistics = None
        self.step_count += 1
        # Last: a warning may be an error.
        self._remarks.note_left_out(left_out, self.step_count)
        if realigned:
            self._remarks.after_realignment()
        return realigned

    def _start_or_stop_collecting(self) -> None:
        for site in self._sites.values():
            site.statistics = None
            if self.phase == 1:
                # FSDP2 takes the gradients away after each backward pass, as if the step had been skipped.
                may_be_skipped = self._optimizer is not None and not is_sharded(site._parameters.get("left"))
                site.statistics = StepStatistics(site.running_mean, may_be_skipped=may_be_skipped)
        self._is_first_step = True


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

"""One optimizer step over the global batch, the same for every task, in both learning phases."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.processes.distributed import World
from engine.training.optimizer import set_learning_rate, step_unless
from engine.training.result import StepResult
from engine.training.state import TrainingState
from pwlu import PWLU


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators from (seed, step, rank) alone.

    A resumed run then draws what the uninterrupted one would have drawn, and no random state needs saving.
    """
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    # torch.manual_seed also keeps, for each kind of accelerator that is not in use, where it was called: a
    # millisecond.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


class TrainStep:
    """Forward, backward and update over one global batch; one with a loss that is not finite is left out.

    The model is in the mode of training. Nothing waits for the device, but for the step that ends phase I.

    Args:
        compute_losses: returns the terms of a micro-batch's mean loss from the model and the micro-batch.
        accumulation: micro-batches per step and process, all of the same size.
        clip_grad_norm: greatest norm of all gradients together; 0 for no limit.
    """

    def __init__(
        self,
        state: TrainingState,
        world: World,
        *,
        compute_losses: Callable[[nn.Module, Any], dict[str, torch.Tensor]],
        accumulation: int,
        clip_grad_norm: float,
        seed: int,
    ) -> None:
        self._state = state
        self._world = world
        self._parallel = world.parallel(state.model)
        self._compute_losses = compute_losses
        self._accumulation = accumulation
        self._clip_grad_norm = clip_grad_norm
        self._seed = seed
        self._parameters = list(state.model.parameters())
        self._pwlu_tensors = [
            f"{name}.{tensor}" if name else tensor
            for name, module in state.model.named_modules()
            if isinstance(module, PWLU)
            for tensor in module.state_dict()
        ]

    def __call__(
        self, micro_batches: Sequence[Any], lr: float, should_stop: Callable[[], bool] = lambda: False
    ) -> StepResult:
        """Train on one global batch, of which `micro_batches` is this process's share."""
        seed_step(self._seed, self._state.step, self._world.rank)
        terms, means = self._backward(micro_batches)
        # One collective sums both the losses and the requests to stop.
        stop = torch.full((1,), float(should_stop()), dtype=torch.float64, device=means.device)
        totals = self._world.add_up(torch.cat([means / self._world.size, stop]))
        skip = (~totals.sum().isfinite()).float()
        self._optimize(lr, skip)
        phases = self._state.phases
        ends_phase_1 = phases.phase == 1 and phases.step_count + 1 == phases.phase1_steps
        if not (ends_phase_1 and skip):  # a step that is left out sets no boundaries
            self._follow(ends_phase_1)
        self._state.step += 1
        return StepResult(terms, totals, ends_phase_1)

    def _backward(self, micro_batches: Sequence[Any]) -> tuple[list[str], Tensor]:
        """Compute the gradients of the global batch's mean loss.

        Return the names of the loss's terms and their means over this process's images: float64 (terms,).
        """
        if len(micro_batches) != self._accumulation:
            raise RuntimeError(
                f"expected {self._accumulation} micro-batches for a step, got {len(micro_batches)}"
            )
        state = self._state
        state.optimizer.zero_grad(set_to_none=True)
        terms: list[str] = []
        means = torch.zeros(())
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self._communication(is_last=number == self._accumulation):
                losses = self._compute_losses(self._parallel, micro_batch)
                loss = torch.stack(list(losses.values())).sum() / self._accumulation
                state.scaler.scale(loss).backward()
            terms = terms or list(losses)
            share = torch.stack([losses[term].detach().float() for term in terms]) / self._accumulation
            means = share if number == 1 else means + share
        return terms, means.double()

    def _communication(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        # The processes average their gradients in the last micro-batch of a step only.
        if is_last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._parallel.no_sync()

    def _optimize(self, lr: float, skip: Tensor) -> None:
        """Apply the gradients unless `skip` is 1."""
        state = self._state
        set_learning_rate(state.optimizer, lr)
        state.scaler.unscale_(state.optimizer)
        state.phases.before_optimizer_step()  # in phase I no PWLU parameter moves
        if self._clip_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_grad_norm)
        step_unless(skip, state.optimizer, state.scaler)
        state.scaler.update()

    def _follow(self, ends_phase_1: bool) -> None:
        """Let the learning phase and the averages follow the parameters."""
        state = self._state
        state.phases.after_optimizer_step()  # after step T' - 1: Eq. 6
        if state.ema:
            state.ema.update()
            if ends_phase_1:  # the mean of a function before and after its realignment would be neither
                state.ema.copy(self._pwlu_tensors)

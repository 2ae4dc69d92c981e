"""The training loop: steps, evaluations, checkpoints and stops in an order that survives death at any point.

Invariant: a checkpoint at step s precedes the evaluation at step s. A run that resumes where an evaluation is
due therefore evaluates first, whether the old one did or not, and reaches the same results.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from engine.data.classes import Classes
from engine.errors import UserError
from engine.evaluation import Evaluation, Record
from engine.processes.distributed import World
from engine.processes.preemption import StopRequest
from engine.records.console import Stopwatch
from engine.training.checkpoint import CheckpointFolder
from engine.training.ema import Ema
from engine.training.result import StepResult
from engine.training.state import TrainingState
from engine.training.step import TrainStep


class Task(Protocol):
    """What is trained: its data, its loss and its evaluation. Classification is one, detection another."""

    @property
    def main_metric(self) -> str:
        """The metric, higher is better, by which the best weights are chosen."""

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step and process."""

    @property
    def classes(self) -> Classes:
        """What the labels of its data stand for."""

    def facts(self) -> dict[str, int]:
        """Return what must not change about the data when a run is resumed."""

    def describe(self) -> str:
        """Return the data and how a global batch is cut, for the user."""

    def batches(self, epoch: int, start_step: int) -> Iterator[Sequence[Any]]:
        """Yield this process's micro-batches of each step of an epoch, from `start_step` on."""

    def losses(self, model: nn.Module, micro_batch: Any) -> dict[str, torch.Tensor]:
        """Return the terms whose sum is the mean loss over a micro-batch, always the same ones."""

    def predict(self, model: nn.Module, micro_batch: Any) -> Any:
        """Return what the model, in evaluation mode, makes of a micro-batch."""

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Return metrics, the same on all processes; None on all if one of them should stop."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long the training is, and what is done how often."""

    total_steps: int
    steps_per_epoch: int
    images_per_step: int
    log_every_steps: int
    checkpoint_every_steps: int
    eval_every_steps: int
    plot_every_steps: int

    def is_evaluation(self, step: int) -> bool:
        return step > 0 and (step == self.total_steps or step % self.eval_every_steps == 0)

    def is_plot(self, step: int) -> bool:
        return step > 0 and (step == self.total_steps or step % self.plot_every_steps == 0)

    def is_log(self, step: int) -> bool:
        return step % self.log_every_steps == 0 or self.is_evaluation(step)

    def is_checkpoint(self, step: int) -> bool:
        return step % self.checkpoint_every_steps == 0

    def is_pause(self, step: int) -> bool:
        """Whether no more batches are read after `step` steps: an epoch ends, or something is due."""
        return step % self.steps_per_epoch == 0 or self.is_evaluation(step) or self.is_plot(step)


@dataclass(frozen=True)
class _TakenStep:
    step: int  # how many there were before
    lr: float
    result: StepResult


class TrainingDiverged(UserError, RuntimeError):
    """The loss is not a finite number after `step` steps, with the learning rate `lr`."""

    def __init__(self, message: str, *, step: int, lr: float) -> None:
        super().__init__(message)
        self.step, self.lr = step, lr


def evaluate_all(
    task: Task, model: nn.Module, ema: Ema | None, world: World, should_stop: Callable[[], bool]
) -> Evaluation | None:
    """Return the metrics of the weights and, prefixed `ema_`, those of the averaged weights if any."""
    world.share_buffers(model)
    evaluation = task.evaluate(model, should_stop)
    if evaluation is None or ema is None:
        return evaluation
    with ema.in_model():
        world.share_buffers(model)
        averaged = task.evaluate(model, should_stop)
    if averaged is None:
        return None
    more = {f"ema_{name}": value for name, value in averaged.metrics.items() if name != "images"}
    return replace(evaluation, metrics={**evaluation.metrics, **more})


@dataclass
class Loop:
    """Trains from the state's step to the plan's end, or until a signal asks for a stop.

    Attributes:
        learning_rate: gives the learning rate of a step (from 0).
        identity: what a checkpoint says about its run beside the state.
        listeners: take every record. Empty on all processes but the main one.
        plot: draws the functions as they are after a number of steps. On the main process only.
        metrics: those of the last evaluation.
    """

    plan: Plan
    task: Task
    state: TrainingState
    take_step: TrainStep
    learning_rate: Callable[[int], float]
    world: World
    stop: StopRequest
    checkpoints: CheckpointFolder
    identity: Mapping[str, Any]
    listeners: Sequence[Callable[[Record], None]] = ()
    plot: Callable[[int], None] = lambda step: None
    metrics: Mapping[str, float] = field(default_factory=dict, init=False)
    _saved_step: int | None = field(default=None, init=False)
    _unread: _TakenStep | None = field(default=None, init=False)
    _stopwatch: Stopwatch = field(default_factory=Stopwatch, init=False)

    def run(self, resumed: bool) -> bool:
        """Train; return True at the end, False if stopped by a signal; all is saved in both cases.

        Raises TrainingDiverged: the loss became NaN or infinite; the checkpoints are those from before.
        """
        state, plan = self.state, self.plan
        if resumed:
            self._saved_step = state.step
        else:
            self._plot()
        while True:
            if plan.is_evaluation(state.step) and not self._evaluate():
                return False
            if plan.is_plot(state.step):
                self._plot()
            if state.step == plan.total_steps:
                return True
            first = state.step
            epoch, start_step = divmod(first, plan.steps_per_epoch)
            state.train_mode()
            self._stopwatch.start()
            for micro_batches in self._stopwatch.waiting_for(self.task.batches(epoch, start_step)):
                if state.step == first:
                    self.world.meet("reading the first images")
                step, lr = state.step, self.learning_rate(state.step)
                result = self.take_step(micro_batches, lr, self._should_stop)
                stop_requested = self._look_at(_TakenStep(step, lr, result))
                self._record_step(result, lr)
                if stop_requested or plan.is_checkpoint(state.step):
                    self._save()
                    self._stopwatch.start()
                if stop_requested:
                    return False
                if plan.is_pause(state.step):
                    break
            else:
                raise RuntimeError(f"no more batches in epoch {epoch}, at step {state.step}")

    def _look_at(self, taken: _TakenStep) -> bool:
        """Look at the step before this one, and at this one if anything is due; return whether to stop.

        The numbers of the step before are here by now, and the device has this one to work on meanwhile.
        """
        step, plan, result = self.state.step, self.plan, taken.result
        before, self._unread = self._unread, taken
        stops = before is not None and self._stops(before)
        is_due = plan.is_log(step) or plan.is_checkpoint(step) or plan.is_pause(step) or result.realigned
        if stops or is_due:
            self._unread = None
            stops |= self._stops(taken)
        return stops

    def _stops(self, taken: _TakenStep) -> bool:
        if not taken.result.is_finite:
            raise TrainingDiverged(self._divergence(taken), step=taken.step, lr=taken.lr)
        return taken.result.stop_requested

    def _record_step(self, result: StepResult, lr: float) -> None:
        state = self.state
        self._stopwatch.lap()
        state.losses.add(result)
        if self.plan.is_log(state.step):
            timing, phase = self._stopwatch.read(), 1 if result.realigned else state.phase
            values = state.losses.take() | {
                "lr": lr,
                "images_per_second": timing.steps_per_second * self.plan.images_per_step,
                "data_wait": timing.wait_share,
            }
            self.tell("train", values | ({"phase": phase} if phase else {}))
        if result.realigned:  # phase I ended with this step: see TrainStep
            self.tell("realign", {})
            self._plot()

    def _evaluate(self) -> bool:
        """Save, evaluate, keep the best weights; return False if stopped meanwhile."""
        state = self.state
        if self._saved_step != state.step:
            self._save()
        evaluation = evaluate_all(self.task, state.model, state.ema, self.world, self._should_stop)
        if evaluation is None:
            return False
        self.tell("eval", evaluation.metrics, evaluation)
        self.metrics = evaluation.metrics
        name = self.task.main_metric if state.ema is None else f"ema_{self.task.main_metric}"
        if self.metrics[name] > state.best.get(name, -math.inf):
            state.best = {name: self.metrics[name], "step": state.step}
            self.world.on_main(lambda: self.checkpoints.save_best(self._content()), "saving the best weights")
        return True

    def _should_stop(self) -> bool:
        return self.stop.requested

    def _save(self) -> None:
        # on_main: where the main process fails to save, the others fail too
        self.world.on_main(lambda: self.checkpoints.save(self._content()), "saving a checkpoint")
        self._saved_step = self.state.step

    def _content(self) -> dict[str, Any]:
        return {**self.identity, **self.state.state_dict()}

    def tell(
        self, kind: str, values: Mapping[str, float | int], evaluation: Evaluation | None = None
    ) -> None:
        """Give the listeners a record of this step; every process calls it."""
        step = self.state.step
        record = Record(kind, step, round(step / self.plan.steps_per_epoch, 4), values, evaluation)
        self.world.on_main(lambda: [listener(record) for listener in self.listeners], "writing the records")

    def _plot(self) -> None:
        self.world.on_main(lambda: self.plot(self.state.step), "drawing the functions")

    def _divergence(self, taken: _TakenStep) -> str:
        kept, result = self.checkpoints.last, taken.result
        good = (
            f"the last good checkpoint is {kept}, step {self._saved_step}"
            if self._saved_step
            else "none was saved"
        )
        return (
            f"the loss is {result.loss} at step {taken.step} with learning rate {taken.lr:.6g}; {good}. "
            "The optimizer left that step out, and nothing was saved after it. Try a lower "
            "optimizer.peak_lr, a longer schedule.warmup_epochs or optimizer.clip_grad_norm=1, in a new "
            "output folder"
        )

"""The training loop: steps, evaluations, checkpoints and stops in an order that survives death at any point.

Invariant: a checkpoint at step s precedes the evaluation at step s. A run that resumes at the end of an epoch
therefore evaluates first, whether the old one did or not, and reaches the same results.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from engine.checkpoint import CheckpointFolder
from engine.distributed import World
from engine.ema import Ema
from engine.preemption import StopRequest
from engine.progress import Stopwatch
from engine.record import Record
from engine.train_step import TrainStep
from engine.training_state import TrainingState


class Task(Protocol):
    """What is trained: its data, its loss and its evaluation. Classification is one, detection another."""

    @property
    def main_metric(self) -> str:
        """The metric, higher is better, by which the best weights are chosen."""

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step and process."""

    def batches(self, epoch: int, start_step: int) -> Iterator[Sequence[Any]]:
        """Yield this process's micro-batches of each step of an epoch, from `start_step` on."""

    def loss(self, model: nn.Module, micro_batch: Any) -> torch.Tensor:
        """Return the mean loss over a micro-batch."""

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Return metrics, the same on all processes; None on all if one of them should stop."""


@dataclass(frozen=True)
class Plan:
    """How long the training is, and what is done how often."""

    epochs: int
    steps_per_epoch: int
    images_per_step: int
    log_every_steps: int
    checkpoint_every_steps: int
    eval_every_epochs: int
    plot_every_epochs: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch


class TrainingDiverged(RuntimeError):
    """The loss is not a finite number."""


def evaluate_all(
    task: Task, model: nn.Module, ema: Ema | None, world: World, should_stop: Callable[[], bool]
) -> dict[str, float] | None:
    """Return the metrics of the weights and, prefixed `ema_`, those of the averaged weights if any."""
    world.share_buffers(model)
    metrics = task.evaluate(model, should_stop)
    if metrics is None or ema is None:
        return metrics
    with ema.in_model():
        world.share_buffers(model)
        averaged = task.evaluate(model, should_stop)
    if averaged is None:
        return None
    return metrics | {f"ema_{name}": value for name, value in averaged.items() if name != "images"}


@dataclass
class Loop:
    """Trains from the state's step to the plan's end, or until a signal asks for a stop.

    `learning_rate` gives the learning rate of a step. `identity` is what a checkpoint says about its run
    beside the state. `listeners` are told of everything worth recording, and `plot` draws the model's curves
    as they are after a number of steps; both are at work on the main process only.
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
    metrics: dict[str, float] = field(default_factory=dict, init=False)  # of the last evaluation
    _saved_step: int | None = field(default=None, init=False)
    _stopwatch: Stopwatch = field(default_factory=Stopwatch, init=False)

    def run(self, resumed: bool) -> bool:
        """Train; return True at the end, False if stopped by a signal; all is saved in both cases.

        Raises:
            TrainingDiverged: the loss became NaN or infinite; the checkpoints are those from before.
        """
        if resumed:
            self._saved_step = self.state.step
        else:
            self.plot(0)
        while True:
            at_epoch_end = self.state.step > 0 and self.state.step % self.plan.steps_per_epoch == 0
            if at_epoch_end and not self._finish_epoch():
                return False
            if self.state.step == self.plan.total_steps:
                return True
            if not self._train_epoch():
                return False

    def _train_epoch(self) -> bool:
        """Train to the end of the epoch; return False if stopped before."""
        epoch, first_step = divmod(self.state.step, self.plan.steps_per_epoch)
        self._stopwatch.start()
        for micro_batches in self.task.batches(epoch, first_step):
            stop_requested = self._step(micro_batches)
            if stop_requested or self.state.step % self.plan.checkpoint_every_steps == 0:
                self._save()
                self._stopwatch.start()
            if stop_requested:
                return False
        return True

    def _step(self, micro_batches: Sequence[Any]) -> bool:
        """Take one step and record it; return True if any process was asked to stop."""
        state = self.state
        lr = self.learning_rate(state.step)
        phase = state.phase
        result = self.take_step(micro_batches, lr, self._should_stop)
        if not math.isfinite(result.loss):
            raise TrainingDiverged(self._divergence(result.loss, lr))
        self._stopwatch.lap()
        state.losses.add(result.loss)
        if state.step % self.plan.log_every_steps == 0 or state.step % self.plan.steps_per_epoch == 0:
            rate = self._stopwatch.steps_per_second() * self.plan.images_per_step
            values = {"loss": state.losses.take(), "lr": lr, "images_per_second": rate}
            self._tell("train", values | ({"phase": phase} if phase else {}))
        if result.realigned:
            self._tell("realign", {})
            self.plot(state.step)
        return result.stop_requested

    def _finish_epoch(self) -> bool:
        """Save, evaluate and draw what is due at the end of an epoch; return False if stopped meanwhile."""
        state, plan = self.state, self.plan
        if self._saved_step != state.step:
            self._save()
        epoch = state.step // plan.steps_per_epoch
        last = epoch == plan.epochs
        if last or epoch % plan.eval_every_epochs == 0:
            metrics = evaluate_all(self.task, state.model, state.ema, self.world, self._should_stop)
            if metrics is None:
                return False
            self._tell("eval", metrics)
            self._keep_best(metrics)
            self.metrics = metrics
        if last or epoch % plan.plot_every_epochs == 0:
            self.plot(state.step)
        return True

    def _should_stop(self) -> bool:
        return self.stop.requested

    def _keep_best(self, metrics: dict[str, float]) -> None:
        name = self.task.main_metric if self.state.ema is None else f"ema_{self.task.main_metric}"
        if metrics[name] > self.state.best.get(name, -math.inf):
            self.state.best = {name: metrics[name], "step": self.state.step}
            self.world.on_main(lambda: self.checkpoints.save_best(self._content()))

    def _save(self) -> None:
        """Save on the main process; the others learn if that failed."""
        self.world.on_main(lambda: self.checkpoints.save(self._content()))
        self._saved_step = self.state.step

    def _content(self) -> dict[str, Any]:
        return {**self.identity, **self.state.state_dict()}

    def _tell(self, kind: str, values: Mapping[str, float | int]) -> None:
        record = Record(kind, self.state.step, round(self.state.step / self.plan.steps_per_epoch, 4), values)
        for listener in self.listeners:
            listener(record)

    def _divergence(self, loss: float, lr: float) -> str:
        kept = self.checkpoints.last
        good = (
            f"the last good checkpoint is {kept}, step {self._saved_step}"
            if self._saved_step
            else "none was saved"
        )
        return (
            f"the loss is {loss} at step {self.state.step} with learning rate {lr:.6g}; {good}. Training "
            "stopped before the parameters changed. Try a lower optimizer.peak_lr, a longer "
            "schedule.warmup_epochs or optimizer.clip_grad_norm=1, in a new output folder"
        )

"""One run in its folder, for any task: begin or go on, train, leave a mark of how it ended; or evaluate."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from engine.config.experiment import Experiment, saved_value
from engine.processes.distributed import World
from engine.processes.preemption import StopRequest
from engine.records.console import metrics_line, say, warn
from engine.records.record import EvaluationFiles
from engine.runs.folder import RunFolder
from engine.runs.manifest import describe_start
from engine.runs.reporting import Reporting
from engine.training.checkpoint import read_checkpoint, require_same
from engine.training.ema import Ema
from engine.training.loop import Loop, Plan, Task, TrainingDiverged, evaluate_all
from engine.training.optimizer import OptimizerOptions
from engine.training.origin import Origin
from engine.training.starting_weights import StartingWeights
from engine.training.state import TrainingState, load_network
from engine.training.step import TrainStep
from engine.training.trained_start import begin_from_trained, origin_sentences, origin_warnings
from pwlu import TwoPhaseLearning


@dataclass(frozen=True)
class Run:
    """One experiment in its folder, on the processes of `world`, until `stop` is requested.

    `start` are the weights of a file that it starts from.
    """

    folder: RunFolder
    experiment: Experiment
    world: World
    stop: StopRequest
    start: StartingWeights | None = None

    def is_finished(self) -> bool:
        """Return whether the run in the folder is complete, and say so.

        Raises CheckpointError: a run of another experiment is complete there.
        """
        metrics = self.world.on_main(
            lambda: self.folder.final_metrics(self.experiment.values), "reading the run folder"
        )
        if metrics is not None and self.world.is_main:
            say(f"{self.folder.path}: this run is finished: {metrics_line(metrics)}")
        return metrics is not None

    def train(
        self,
        task: Task,
        state: TrainingState,
        plan: Plan,
        learning_rate: Callable[[int], float],
        *,
        options: OptimizerOptions,
        seed: int,
        origin: Origin,
        components: Callable[[], Mapping[str, Any]] = dict,
    ) -> bool:
        """Train from the folder's last checkpoint, if it has one, to the end (True) or to a signal (False).

        `origin` says what the network began as; `components` is called on the main process, for the
        manifest's start.
        Raises CheckpointError for a folder that is in use, of another experiment, or without a good
        checkpoint, and TrainingDiverged for a loss that became NaN or infinite.
        """
        world, folder = self.world, self.folder
        with contextlib.ExitStack() as until_end:
            world.on_main(lambda: until_end.enter_context(folder.claimed()), "opening the run folder")
            resumed = self._begin(state, task, components)
            reporting = Reporting(folder, state.model, plan, resume_step=state.step, active=world.is_main)
            until_end.callback(reporting.close)
            world.meet("opening the records")
            take_step = TrainStep(
                state,
                world,
                compute_losses=task.losses,
                accumulation=task.accumulation,
                clip_grad_norm=options.clip_grad_norm,
                seed=seed,
            )
            loop = Loop(
                plan=plan,
                task=task,
                state=state,
                take_step=take_step,
                learning_rate=learning_rate,
                world=world,
                stop=self.stop,
                checkpoints=folder.checkpoints,
                identity=self.experiment.identity(task.facts()) | {"classes": task.classes.plain()},
                listeners=reporting.listeners,
                plot=reporting.plot,
            )
            if world.is_main:
                self._tell_beginning(origin, loop, resumed)
            if not resumed:
                self._prepare(loop, options, origin, reporting)
            try:
                finished = loop.run(resumed)
            except TrainingDiverged as error:  # on every process
                world.on_main(
                    partial(folder.mark_diverged, error.step, error.lr), "writing how the run ended"
                )
                raise
            world.on_main(lambda: self._conclude(finished, loop), "writing how the run ended")
            return finished

    def _begin(self, state: TrainingState, task: Task, components: Callable[[], Mapping[str, Any]]) -> bool:
        world = self.world
        data = task.facts()  # on every process
        # The main process alone reads it: no other machine needs to see the folder.
        checkpoint = world.on_main(
            lambda: self.folder.open(self.experiment, data, task.classes), "reading the last checkpoint"
        )
        if checkpoint is not None:
            state.load_state_dict(checkpoint)
        world.on_main(
            lambda: self.folder.add_start(
                describe_start(
                    step=state.step,
                    world_size=world.size,
                    device=world.device,
                    components={**components(), **(self.start.facts() if self.start else {})},
                )
            ),
            "writing the manifest",
        )
        return checkpoint is not None

    def _tell_beginning(self, origin: Origin, loop: Loop, resumed: bool) -> None:
        say("\n".join(filter(None, (str(origin.report), origin.fused, loop.task.describe()))))
        own = f", from its own checkpoint and not from {self.start.path}" if self.start else ""
        say(f"resuming at step {loop.state.step}{own}" if resumed else "starting at step 0")

    def _prepare(self, loop: Loop, options: OptimizerOptions, origin: Origin, reporting: Reporting) -> None:
        """Say what the network starts from, and bring it to its first step."""
        if self.world.is_main:
            for sentence in origin_sentences(origin, self.start):
                say(sentence)
            for sentence in origin_warnings(origin, options):
                warn(sentence)
        if origin.is_trained and begin_from_trained(
            loop.state, loop.task, loop.plan, self.world, origin, loop.tell, lambda: self.stop.requested
        ):
            reporting.tell_start_gaps()

    def read_trained(self, path: Path) -> dict[str, Any]:
        """Return a checkpoint of the experiment's network, on every process.

        Raises CheckpointError for a file that cannot be read, is no checkpoint, or is one of another network.
        """
        checkpoint = self.world.on_main(lambda: read_checkpoint(path), "reading the checkpoint")
        network = self.experiment.network
        saved = {key: saved_value(checkpoint["experiment"], key) for key in network}
        require_same(
            saved, network, path, "Give the --config of the run that wrote it, or another checkpoint"
        )
        return checkpoint

    def evaluate(self, path: Path, checkpoint: Mapping[str, Any], task: Task, model: nn.Module) -> bool:
        """Evaluate the weights of the checkpoint at `path`, averaged ones too; print a line of JSON.

        Return False if a signal asked for a stop. Raises CheckpointError where they do not fit the model.
        """
        # In phase I the network is not what its parameters alone say.
        load_network(model, TwoPhaseLearning(model, checkpoint["phases"]["phase1_steps"]), checkpoint)
        ema = None
        if checkpoint["ema"] is not None:
            ema = Ema(model, decay=0.0)
            ema.load_state_dict(checkpoint["ema"])
        evaluation = evaluate_all(task, model, ema, self.world, lambda: self.stop.requested)
        if evaluation is None:
            return False
        if self.world.is_main:
            say(json.dumps({"checkpoint": str(path), "step": checkpoint["step"], **evaluation.metrics}))
        files = EvaluationFiles(self.folder.evaluation_of(path))
        self.world.on_main(lambda: files.write(evaluation), "writing the evaluation")
        return True

    def _conclude(self, finished: bool, loop: Loop) -> None:
        folder, step = self.folder, loop.state.step
        if not finished:
            folder.mark_requeue(step, self.stop.signal_name)
            asked_by = self.stop.signal_name or "a signal to another process"
            say(f"stopped by {asked_by} at step {step}, saved; the same command goes on from there")
            return
        folder.mark_finished(loop.metrics)
        best = {name: value for name, value in loop.state.best.items() if name != "step"}
        say(f"finished: {metrics_line(loop.metrics)}")
        say(f"best: {metrics_line(best)} at step {loop.state.best['step']:g}")
        say(f"weights: {folder.checkpoints.best} (best), {folder.checkpoints.last} (last)")
        say(f"records: {folder.metrics}; to look at them: tensorboard --logdir {folder.tensorboard}")
        if folder.curves.exists():
            say(f"learned curves: {folder.curves}")

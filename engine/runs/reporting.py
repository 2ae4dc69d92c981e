"""Who is told what happens in a run: console, JSON lines, TensorBoard, pictures and evaluation results."""

from collections.abc import Callable

from torch import nn

from engine.evaluation import Record
from engine.records.console import Console, say
from engine.records.curves import draw_curves, pwlu_layers, render
from engine.records.functions_log import FunctionsLog
from engine.records.record import EvaluationFiles, JsonLines, TensorBoard, write_picture
from engine.records.start_gaps import start_gap_line
from engine.runs.folder import RunFolder
from engine.training.loop import Plan


class Reporting:
    """The main process's reports; on every other process there are no listeners and nothing is drawn.

    Args:
        resume_step: step of the checkpoint the run goes on from, 0 at its beginning.
        active: whether this is the main process.
    """

    def __init__(
        self, folder: RunFolder, model: nn.Module, plan: Plan, *, resume_step: int, active: bool
    ) -> None:
        self._folder, self._model, self._steps_per_epoch = folder, model, plan.steps_per_epoch
        self.listeners: list[Callable[[Record], None]] = []
        self._to_close: list[JsonLines | TensorBoard | FunctionsLog] = []
        self._plotters: tuple[FunctionsLog, TensorBoard] | None = None  # for a model with PWLU
        if active:
            json_lines = JsonLines(folder.metrics, resume_step)
            tensorboard = TensorBoard(folder.tensorboard, resume_step)
            self._to_close += [json_lines, tensorboard]
            if pwlu_layers(model):
                self._plotters = (FunctionsLog(folder.functions, resume_step), tensorboard)
                self._to_close.append(self._plotters[0])
            console = Console(
                steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps, resume_step=resume_step
            )
            self.listeners = [json_lines, tensorboard, console, EvaluationFiles(folder.path)]
            self.listeners.append(self._after_realignment)

    def _after_realignment(self, record: Record) -> None:
        if record.kind == "realign":
            self.tell_start_gaps()

    def tell_start_gaps(self) -> None:
        """Say which PWLUs, that begin to learn now, are far from the function that they start as."""
        if self._plotters is not None and (line := start_gap_line(pwlu_layers(self._model))):
            say(line)

    def plot(self, step: int) -> None:
        """Draw the curves as they are after `step` steps, for TensorBoard and as the run's picture.

        The numbers, of all layers, go to the run's log of its functions.
        """
        if self._plotters is None:
            return
        log, tensorboard = self._plotters
        epoch = step / self._steps_per_epoch
        log.write(step, round(epoch, 4), pwlu_layers(self._model))
        figure = draw_curves(self._model, f"PWLU after {round(epoch, 2):g} epochs, step {step}")
        if figure is not None:
            picture = render(figure)
            tensorboard.add_picture("pwlu/curves", picture, step)
            write_picture(self._folder.curves, picture)

    def close(self) -> None:
        for writer in self._to_close:
            writer.close()

"""Who is told what happens in a run: console, JSON lines, TensorBoard, pictures and evaluation results."""

from collections.abc import Callable

from torch import nn

from engine.curves import draw_curves, render
from engine.loop import Plan
from engine.progress import Console
from engine.record import EvaluationFiles, JsonLines, Record, TensorBoard, write_picture
from engine.run_folder import RunFolder


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
        self._writers: tuple[JsonLines, TensorBoard] | None = None
        if active:
            json_lines = JsonLines(folder.metrics, resume_step)
            tensorboard = TensorBoard(folder.tensorboard, resume_step)
            self._writers = (json_lines, tensorboard)
            console = Console(
                steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps, resume_step=resume_step
            )
            self.listeners = [json_lines, tensorboard, console, EvaluationFiles(folder.path)]

    def plot(self, step: int) -> None:
        """Draw the curves as they are after `step` steps, for TensorBoard and as the run's picture."""
        if self._writers is None:
            return
        figure = draw_curves(
            self._model, f"PWLU after {round(step / self._steps_per_epoch, 2):g} epochs, step {step}"
        )
        if figure is not None:
            picture = render(figure)
            self._writers[1].add_picture("pwlu/curves", picture, step)
            write_picture(self._folder.curves, picture)

    def close(self) -> None:
        """Write what is still in memory."""
        for writer in self._writers or ():
            writer.close()

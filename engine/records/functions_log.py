"""A run's log of its learned functions, `curves.jsonl`, from which tools draw how they changed.

One JSON object per line: step, epoch and, under `layers`, for every PWLU its number of functions, the logged
channels and, in their order, left, right, points, left_slope and right_slope.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.records.curves import FUNCTIONS_PER_LAYER, spread
from engine.records.learned_functions import LayerFunctions
from engine.records.record import JsonLines, read_records
from pwlu import PWLU


class FunctionsLog:
    """Appends functions of every PWLU to a file, one line per step.

    Lines of steps after `resume_step`, that of the checkpoint the run goes on from, are dropped.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self._lines = JsonLines(path, resume_step)
        self._last_step = max((entry["step"] for entry in read_records(path)), default=None)

    def write(self, step: int, epoch: float, layers: Mapping[str, PWLU]) -> None:
        # It has, where the realignment falls on a step that is drawn anyway, or where the run resumes.
        if step == self._last_step:
            return
        self._last_step = step
        chosen = {
            name: LayerFunctions.of(layer, spread(layer.num_parameters, FUNCTIONS_PER_LAYER)).to_json()
            for name, layer in layers.items()
        }
        self._lines.append({"kind": "functions", "step": step, "epoch": epoch, "layers": chosen})

    def close(self) -> None:
        self._lines.close()


@dataclass(frozen=True)
class LoggedFunctions:
    """The functions after one step, by layer."""

    step: int
    epoch: float
    layers: Mapping[str, LayerFunctions]


def read_functions(path: Path) -> list[LoggedFunctions]:
    """Return what `FunctionsLog` wrote. Raises ValueError for other lines, OSError for no such file."""
    try:
        return [
            LoggedFunctions(
                entry["step"],
                entry["epoch"],
                {name: LayerFunctions.from_json(values) for name, values in entry["layers"].items()},
            )
            for entry in read_records(path)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: a line is no record of learned functions ({type(error).__name__}: {error}); expected "
            "the file as a training program writes it"
        ) from error

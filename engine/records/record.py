"""The records of a run: JSON lines for programs, TensorBoard for people, no step in them twice."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from engine.evaluation import Evaluation, Record
from engine.files import named_errors, write_atomically, write_text_atomically


class JsonLines:
    """Appends records to a file, one JSON object per line.

    `resume_step` is that of the checkpoint the run goes on from, 0 at its start.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        if path.exists():  # drop what will happen again
            kept = [line for line in _lines(path) if _is_kept(line, resume_step)]
            write_text_atomically(path, "".join(line + "\n" for line in kept))
        self._path = path
        self._file = open(path, "a", encoding="utf-8")

    def __call__(self, record: Record) -> None:
        values = {
            name: value if math.isfinite(value) else None  # JSON has no NaN
            for name, value in record.values.items()
        }
        self.append({"kind": record.kind, "step": record.step, "epoch": record.epoch, **values})

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append any entry with a kind and a step, without NaN."""
        with named_errors(self._path):
            self._file.write(json.dumps(entry, allow_nan=False) + "\n")
            self._file.flush()  # a process that dies later loses no line

    def close(self) -> None:
        with named_errors(self._path):
            self._file.close()


class TensorBoard:
    """Writes numbers as scalars `<kind>/<name>`, and pictures."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        self._folder = folder
        with named_errors(folder):
            self.writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def __call__(self, record: Record) -> None:
        with named_errors(self._folder):
            for name, value in record.values.items():
                self.writer.add_scalar(f"{record.kind}/{name}", value, record.step)
            if record.evaluation:
                for name, picture in record.evaluation.pictures.items():
                    self.add_picture(f"eval/{name}", picture, record.step)
                self.writer.flush()

    def add_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        with named_errors(self._folder):
            self.writer.add_image(name, picture, step, dataformats="HWC")
            self.writer.flush()

    def close(self) -> None:
        with named_errors(self._folder):
            self.writer.close()


class EvaluationFiles:
    """Writes the last evaluation's pictures and results as `<name>.png` and `<name>.json` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, record: Record) -> None:
        if record.evaluation:
            self.write(record.evaluation)

    def write(self, evaluation: Evaluation) -> None:
        if evaluation.pictures or evaluation.results:
            self._folder.mkdir(parents=True, exist_ok=True)
        for name, picture in evaluation.pictures.items():
            write_picture(self._folder / f"{name}.png", picture)
        for name, result in evaluation.results.items():
            write_text_atomically(self._folder / f"{name}.json", json.dumps(result))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 (height, width, 3), as PNG."""
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, "PNG"))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines, without lines that were cut off."""
    return [entry for line in _lines(path) if (entry := _parse(line)) is not None]


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", errors="replace").splitlines()  # a power cut may leave anything


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:  # the process was killed while it wrote the line
        return None
    return entry if isinstance(entry, dict) else None


def _is_kept(line: str, resume_step: int) -> bool:
    entry = _parse(line)
    if entry is None or resume_step == 0:
        return False
    # The evaluation at a step comes after its checkpoint.
    return entry["step"] < resume_step or (entry["step"] == resume_step and entry["kind"] != "eval")

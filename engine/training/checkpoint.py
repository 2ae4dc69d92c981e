"""Checkpoints of a run: `last.pt`, `previous.pt` in case that is damaged, and `best.pt`."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.config.experiment import STARTING_FILE, saved_value
from engine.errors import UserError
from engine.files import remove_temporary_files, write_atomically
from engine.records.console import warn

FORMAT = "pwlu-training-checkpoint"
VERSION = 2
_TRAINING_ONLY = ("optimizer", "scaler", "losses")


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be used as asked; the message says why and what to do."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint is cut off or altered."""


class ForeignFile(CheckpointError):
    """A file is whole, but no checkpoint of this project."""


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, marked as a checkpoint of this project."""
    marked = {"format": FORMAT, "version": VERSION, **content}
    write_atomically(path, lambda file: torch.save(marked, file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU. No code in the file is run (`weights_only=True`).

    Raises DamagedCheckpoint for a file that is cut off or altered, ForeignFile for one that is no checkpoint
    of this project, and CheckpointError for one that is missing or of another version.
    """
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        hint = "; name a file in it, e.g. checkpoints/best.pt of a run" * isinstance(error, IsADirectoryError)
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}{hint}") from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise ForeignFile(_foreign(path, f"torch.load says: {first_line}")) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ForeignFile(_foreign(path, f"it holds a {type(content).__name__} of something else"))
    if content["version"] != VERSION:
        raise CheckpointError(
            f"{path}: written in checkpoint version {content['version']}, but this program reads version "
            f"{VERSION}; use the commit that manifest.json in the run's folder names"
        )
    return content


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a checkpoint's `model`. Raises CheckpointError where it is of another network."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's weights do not fit this network: {error}") from error


_TO_RESUME = (
    "Give this run a folder of its own (output=...), or go back to the old values to continue the old run"
)


def require_same(
    saved: Mapping[str, Any], current: Mapping[str, Any], source: Path, remedy: str = _TO_RESUME
) -> None:
    """Raise CheckpointError, naming each key that differs, unless two flat sets of settings are equal."""
    differing = [
        _difference(key, saved_value(saved, key), saved_value(current, key))
        for key in sorted(saved.keys() | current.keys())
        if saved_value(saved, key) != saved_value(current, key)
    ]
    if differing:
        raise CheckpointError(f"{source} belongs to another experiment: {'; '.join(differing)}. {remedy}")


def _difference(key: str, was: Any, now: Any) -> str:
    if key == STARTING_FILE:  # which a user knows as an argument
        return f"--init-from was {was or 'not given'}, is now {now or 'not given'}"
    return f"{key} was {was!r}, is now {now!r}"


class CheckpointFolder:
    """The checkpoints of one run; only the main process writes to it."""

    def __init__(self, folder: Path) -> None:
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self.best = folder / "best.pt"
        self._next = folder / "next.pt"  # whole, but not yet in the place of last.pt
        self._folder = folder

    def save(self, content: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self._next, content)
        self._rotate()

    def save_best(self, content: Mapping[str, Any]) -> None:
        """Write `content` as the best so far, without what only training needs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(
            self.best, {key: value for key, value in content.items() if key not in _TRAINING_ONLY}
        )

    def exists(self) -> bool:
        """Return whether there is any checkpoint to go on from."""
        return any(path.exists() for path in (self.last, self.previous, self._next))

    def load_latest(self) -> dict[str, Any] | None:
        """Return the newest good checkpoint, None where there never was one; warn if it is not the last.

        Raises CheckpointError: there are checkpoints but none can be used.
        """
        if not self._folder.is_dir():
            return None
        remove_temporary_files(self._folder)
        self._rotate()
        problem = f"{self.last}: missing, though there is a {self.previous.name}"
        try:
            if self.last.exists():
                return read_checkpoint(self.last)
        except DamagedCheckpoint as error:
            problem = str(error)
        if self.previous.exists():
            return self._fall_back(problem)
        if self.last.exists():
            raise CheckpointError(f"{problem}, and there is no {self.previous.name}; {self._advice()}")
        return None

    def _rotate(self) -> None:
        # Also finishes what a `save` began that died at any point.
        if self._next.exists():
            if self.last.exists():
                os.replace(self.last, self.previous)
            os.replace(self._next, self.last)

    def _fall_back(self, problem: str) -> dict[str, Any]:
        try:
            content = read_checkpoint(self.previous)
        except CheckpointError as error:
            raise CheckpointError(f"{problem}; {error}; {self._advice()}") from error
        if self.last.exists():  # out of the way of the rotation, but kept
            os.replace(self.last, self.last.with_suffix(".pt.damaged"))
        warn(f"{problem}; continuing from {self.previous.name}, step {content['step']}")
        return content

    def _advice(self) -> str:
        return f"put a good checkpoint there, or delete {self._folder} to start from the beginning"


def _check_archive(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(4)
    if head in (b"", b"\0\0\0\0"):
        raise DamagedCheckpoint(f"{path}: this checkpoint is damaged: it is empty")
    if head != b"PK\x03\x04":
        raise ForeignFile(_foreign(path, "it is no archive of torch.save"))
    try:
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
    except (zipfile.BadZipFile, EOFError) as error:
        raise DamagedCheckpoint(f"{path}: this checkpoint is damaged: it is cut off ({error})") from error
    if altered:
        raise DamagedCheckpoint(f"{path}: this checkpoint is damaged: its part {altered} is altered")


def _foreign(path: Path, found: str) -> str:
    return (
        f"{path}: not a checkpoint of this project ({found}); expected a file that a training run wrote: "
        "last.pt, previous.pt or best.pt in the folder `checkpoints` of the run"
    )

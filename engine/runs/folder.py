"""The folder of one run: what lies where in it, and whether a run may begin or go on there."""

import contextlib
import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from engine.config.experiment import Experiment
from engine.data.classes import Classes, classes_of_checkpoint
from engine.files import (
    UNSUPPORTED,
    FolderError,
    remove_temporary_files,
    require_writable,
    write_text_atomically,
)
from engine.records.console import listed, warn
from engine.training.checkpoint import CheckpointError, CheckpointFolder, require_same


class RunFolder:
    """A run's files. Only the main process creates or changes any of them.

    The marker files say how the last start ended, since torchrun turns every exit status into 1: FINISHED
    when the training is complete (it holds the final metrics), REQUEUE when a signal asked for a stop and the
    same command is to go on, DIVERGED when the loss became NaN or infinite (it holds where).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = CheckpointFolder(self.path / "checkpoints")
        self.config = self.path / "config.yaml"
        self.manifest = self.path / "manifest.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.functions = self.path / "curves.jsonl"
        self._lock = self.path / ".lock"
        self._finished = self.path / "FINISHED"
        self._requeue = self.path / "REQUEUE"
        self._diverged = self.path / "DIVERGED"

    def evaluation_of(self, checkpoint: Path) -> Path:
        return self.path / f"evaluation_of_{checkpoint.stem}"

    def require_writable(self) -> None:
        """Raise FolderError where no files can be made in the folder, or it is the user's home."""
        if self.path.resolve() == Path(os.path.expanduser("~")).resolve():  # a shell may expand output=~
            raise FolderError(f"output: {self.path} is your home folder; name one in it by output=...")
        try:
            require_writable(self.path)
        except FolderError as error:
            raise FolderError(f"output: {error} by output=...") from error

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder, created if missing, for the block; warn where the file system has no locks.

        Raises CheckpointError if another process, on this machine or another one, holds it.
        """
        # Two starts at a time would mix their records and overwrite their checkpoints.
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self._lock, "a+") as file:
            try:
                # Ends with the process, however it ends; data loading processes do not inherit it.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (*UNSUPPORTED, errno.ENOLCK, errno.EACCES, errno.EAGAIN):
                    raise OSError(error.errno, error.strerror, str(self._lock)) from error
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    file.seek(0)
                    raise CheckpointError(
                        f"{self.path} is in use: another start of this run ({file.read().strip()}) is at "
                        "work there; wait for its end, or name another folder with output=..."
                    ) from error
                warn(f"{self.path}: no lock can be taken ({error}); do not start this run twice at a time")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield

    def open(
        self, experiment: Experiment, data: Mapping[str, Any], classes: Classes
    ) -> dict[str, Any] | None:
        """Make the folder ready for a start; return the checkpoint to go on from, or None at the beginning.

        `data` and `classes` must be as at the run's first start. Raises CheckpointError where the folder
        belongs to another experiment, or has checkpoints but no good one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(self.path)
        for mark in (self._requeue, self._diverged):
            mark.unlink(missing_ok=True)
        checkpoint = self.checkpoints.load_latest()
        has_records = self.metrics.exists() and self.metrics.stat().st_size > 0
        manifest = self.read_manifest()
        if manifest is None or not (checkpoint or has_records):  # no step was taken here yet
            manifest = {
                "experiment_hash": experiment.hash,
                "experiment": experiment.values,
                "data": dict(data),
                "starts": [],
            }
        if checkpoint is not None:
            _require_same_classes(classes_of_checkpoint(checkpoint, str(self.checkpoints.last)), classes)
        for saved, source in ((manifest, self.path), (checkpoint, self.checkpoints.last)):
            if saved is not None:
                require_same(saved["experiment"], experiment.values, source)
                require_same(saved["data"], data, source)
        if checkpoint is None and has_records:
            warn(f"{self.path} has records of an earlier start but no checkpoint: beginning again at step 0")
        self._write_manifest(manifest)
        write_text_atomically(self.config, yaml.safe_dump(experiment.settings, sort_keys=False))
        return checkpoint

    def is_finished(self) -> bool:
        return self._finished.exists()

    def final_metrics(self, experiment: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a finished run recorded at its end, None for one that is not finished.

        Raises CheckpointError if the run that finished here has other values than `experiment`.
        """
        if not self.is_finished():
            return None
        manifest = self.read_manifest()
        if manifest:
            require_same(manifest["experiment"], experiment, self.path)
        return self._read(self._finished)

    def digest_of_lost(self, path: Path) -> str | None:
        """Return the digest of the weights at `path` that the run started from, if these are gone.

        None also where there is no checkpoint, so that the run cannot go on without them.
        """
        manifest = self.read_manifest()
        if path.exists() or manifest is None or not self.checkpoints.exists():
            return None
        starts = [start["init_from"] for start in manifest["starts"] if "init_from" in start]
        return next((start["sha256"] for start in starts if start["path"] == str(path)), None)

    def divergence(self) -> dict[str, Any] | None:
        """Return `step` and `lr` (learning rate) at which the run diverged, None for one that did not."""
        return self._read(self._diverged) if self._diverged.exists() else None

    def add_start(self, start: dict[str, Any]) -> None:
        manifest = self.read_manifest()
        assert manifest is not None
        manifest["starts"].append(start)
        self._write_manifest(manifest)

    def mark_finished(self, metrics: Mapping[str, Any]) -> None:
        write_text_atomically(self._finished, json.dumps(metrics) + "\n")

    def mark_requeue(self, step: int, signal_name: str) -> None:
        write_text_atomically(self._requeue, json.dumps({"step": step, "signal": signal_name}) + "\n")

    def mark_diverged(self, step: int, lr: float) -> None:
        """Write that the loss was not finite after `step` steps, with the learning rate `lr`."""
        write_text_atomically(self._diverged, json.dumps({"step": step, "lr": lr}) + "\n")

    def read_manifest(self) -> dict[str, Any] | None:
        """Return what identifies the run, and its starts; None before the first. Raises CheckpointError."""
        return self._read(self.manifest, "experiment") if self.manifest.exists() else None

    def _read(self, file: Path, *keys: str) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text("utf-8"))
            return {key: content[key] for key in keys} | content
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{file}: not what a run of this project writes there ({type(error).__name__}: {error}); "
                "remove it, or name another folder by output=..."
            ) from error

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        write_text_atomically(self.manifest, json.dumps(manifest, indent=2) + "\n")


def _require_same_classes(saved: Classes, now: Classes) -> None:
    """Raise CheckpointError, naming the first that differ, unless labels stand for the same classes."""
    if saved.names is None or now.names is None:
        if saved.names != now.names and saved.count == now.count:
            nameless = saved if saved.names is None else now
            warn(f"{nameless.source} has no class names: whether labels still mean the same is not known")
        return  # another number of classes is another experiment
    if saved.names == now.names:
        return
    old_names, new_names = set(saved.names), set(now.names)
    new = [repr(name) for name in now.names if name not in old_names]
    gone = [repr(name) for name in saved.names if name not in new_names]
    moved = [
        f"label {label} was {was!r}, is now {name!r}"
        for label, (was, name) in enumerate(zip_longest(saved.names, now.names))
        if was != name
    ]
    kinds = {"new": new, "gone": gone} if new or gone else {"in another order": moved}
    changes = [f"{kind}: {listed(words)}" for kind, words in kinds.items() if words]
    raise CheckpointError(
        f"{saved.source} was trained with other classes than those of {now.source}: "
        f"{'; '.join(changes)}. Give the classes their old names and order to continue the old run, or give "
        "this run a folder of its own (output=...)"
    )

"""The folder of one run: what lies where in it, and whether a run may begin or go on there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.files import remove_temporary_files, write_text_atomically
from engine.training.checkpoint import CheckpointError, CheckpointFolder, require_same


@dataclass(frozen=True)
class Identity:
    """What a run is: all its settings, those of them that define the experiment, and facts about its data.

    `experiment` and `data` are flat, and must stay the same when the run is resumed.
    """

    settings: Mapping[str, Any]
    experiment: Mapping[str, Any]
    experiment_hash: str
    data: Mapping[str, Any]


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
        self._finished = self.path / "FINISHED"
        self._requeue = self.path / "REQUEUE"
        self._diverged = self.path / "DIVERGED"

    def evaluation_of(self, checkpoint: Path) -> Path:
        """Return the folder for what an evaluation of a checkpoint finds."""
        return self.path / f"evaluation_of_{checkpoint.stem}"

    def open(self, identity: Identity, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Make the folder ready for a start; return the checkpoint to go on from, or None at the beginning.

        `warn` is told, in a sentence, what the user should know.

        Raises:
            CheckpointError: the folder belongs to another experiment, or has checkpoints but no good one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(self.path)
        for mark in (self._requeue, self._diverged):
            mark.unlink(missing_ok=True)
        checkpoint = self.checkpoints.load_latest()
        has_records = self.metrics.exists() and self.metrics.stat().st_size > 0
        manifest = self._read_manifest()
        if manifest is None or not (checkpoint or has_records):  # nothing of worth here yet
            facts = asdict(identity)
            manifest = {name: facts[name] for name in ("experiment_hash", "experiment", "data")} | {
                "starts": []
            }
        self._require_same(manifest, identity, self.path)
        if checkpoint is not None:
            self._require_same(checkpoint, identity, self.checkpoints.last)
        elif has_records:
            warn(f"{self.path} has records of an earlier start but no checkpoint: beginning again at step 0")
        self._write_manifest(manifest)
        write_text_atomically(self.config, yaml.safe_dump(dict(identity.settings), sort_keys=False))
        return checkpoint

    def final_metrics(self, experiment: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a finished run recorded at its end, None for one that is not finished.

        Raises:
            CheckpointError: the run that finished here is another experiment.
        """
        if not self._finished.exists():
            return None
        manifest = self._read_manifest()
        if manifest:
            require_same(manifest["experiment"], experiment, self.path)
        return json.loads(self._finished.read_text())

    def divergence(self) -> dict[str, Any] | None:
        """Return `step` and `lr` (learning rate) at which the run diverged, None for one that did not."""
        return json.loads(self._diverged.read_text()) if self._diverged.exists() else None

    def add_start(self, start: dict[str, Any]) -> None:
        """Add one start of the run to the manifest."""
        manifest = self._read_manifest()
        assert manifest is not None, "open() writes it"
        manifest["starts"].append(start)
        self._write_manifest(manifest)

    def mark_finished(self, metrics: Mapping[str, Any]) -> None:
        """Say that the training is complete."""
        write_text_atomically(self._finished, json.dumps(metrics) + "\n")

    def mark_requeue(self, step: int, signal_name: str) -> None:
        """Say that the training was asked to stop, has saved, and wants to go on."""
        write_text_atomically(self._requeue, json.dumps({"step": step, "signal": signal_name}) + "\n")

    def mark_diverged(self, step: int, lr: float) -> None:
        """Say that the loss was no finite number after `step` steps, with the learning rate `lr`."""
        write_text_atomically(self._diverged, json.dumps({"step": step, "lr": lr}) + "\n")

    def _require_same(self, saved: Mapping[str, Any], identity: Identity, source: Path) -> None:
        require_same(saved["experiment"], identity.experiment, source)
        require_same(saved["data"], identity.data, source)

    def _read_manifest(self) -> dict[str, Any] | None:
        if not self.manifest.exists():
            return None
        try:
            return json.loads(self.manifest.read_text())
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self.manifest}: not a manifest of this project: {error}") from error

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        write_text_atomically(self.manifest, json.dumps(manifest, indent=2) + "\n")

"""The weights that a run starts from (`--init-from`): a checkpoint of this project, or a plain state dict."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models import load_state_dict

from engine.config.experiment import Experiment, saved_value
from engine.data.classes import Classes, classes_of_checkpoint
from engine.records.console import listed
from engine.training.checkpoint import CheckpointError, ForeignFile, read_checkpoint, require_same

ORIGINAL = {"name": "original"}  # a network's own activations


@dataclass(frozen=True)
class StartingWeights:
    """What a file holds to start from.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes, 64 hexadecimal digits.
        tensors: the weights by name; of a checkpoint the averaged ones, if it has any.
        checkpoint: all else that a checkpoint of this project says; None for a plain state dict.
    """

    path: Path
    digest: str
    tensors: Mapping[str, torch.Tensor]
    checkpoint: Mapping[str, Any] | None

    @property
    def is_classifier(self) -> bool:
        """Whether they are timm's network's, not a detector's."""
        return self.checkpoint is None or _kind(self.checkpoint["experiment"]) == "classifier"

    @property
    def activation(self) -> Mapping[str, Any]:
        """The activation that the weights were trained with, as configured."""
        return ORIGINAL if self.checkpoint is None else self.checkpoint["settings"]["activation"]

    @property
    def input_size(self) -> tuple[int, int, int] | None:
        """A classifier's in training, for which its activations were replaced: channels, height, width."""
        side = None if self.checkpoint is None else self.checkpoint["settings"]["data"].get("image_size_px")
        return None if side is None else (3, side, side)

    @property
    def has_learned(self) -> bool:
        """Whether its activations have learned with the weights; in phase I a PWLU has not."""
        if self.checkpoint is None:
            return False
        phases = self.checkpoint["phases"]
        is_pwlu = self.checkpoint["experiment"]["activation.name"] == "pwlu"
        return not is_pwlu or phases["step_count"] >= phases["phase1_steps"]

    def describe(self) -> str:
        """Return the file and what it is, for the user."""
        if self.checkpoint is None:
            return f"{self.path}, a state dict"
        averaged = ", the averaged weights" if self.checkpoint["averaged"] else ""
        return f"{self.path}, step {self.checkpoint['step']}{averaged}"

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        of_checkpoint = ("step", "experiment_hash")
        content = self.checkpoint or {}
        known = {name: content[name] for name in of_checkpoint if name in content}
        return {"init_from": {"path": str(self.path), "sha256": self.digest, **known}}

    def has_classes(self, classes: Classes) -> bool:
        """Return whether its labels mean the same as these; only their number is known of a plain file."""
        if self.checkpoint is None:
            return True  # the shapes will tell
        own = classes_of_checkpoint(self.checkpoint, str(self.path))
        if own.names is None or classes.names is None:
            return own.count == classes.count
        return own.names == classes.names

    def keeps_activations(self, experiment: Experiment) -> bool:
        """Return whether this experiment has the checkpoint's activations, which then stay as they are.

        Those of a classifier, in a detector's backbone, do not.

        Raises CheckpointError, naming the keys, for a checkpoint of another network, and for functions that
        have learned and that phase I would reset.
        """
        if self.checkpoint is None:
            return False
        saved, now = self.checkpoint["experiment"], experiment.values
        self._require_network(saved, experiment)
        if _kind(saved) != _kind(now):
            return False
        keys = ["activation.name"]
        if now["activation.name"] == "pwlu":
            keys += ["activation.num_intervals", "activation.mode"]
            if not self.has_learned and now["activation.init"] != "replaced":
                keys += ["activation.init", "activation.init_slope"]
        keeps = all(saved_value(saved, key) == now[key] for key in keys)
        if keeps and now["activation.name"] == "pwlu" and self.has_learned and now["phase1_epochs"] > 0:
            raise CheckpointError(
                f"{self.path} has PWLUs that have learned, and phase I would reset them to their start; give "
                "phase1_epochs=0 to go on with them"
            )
        return keeps

    def _require_network(self, saved: Mapping[str, Any], experiment: Experiment) -> None:
        now = experiment.network
        if _kind(saved) == _kind(now):
            keys = [key for key in now if key.startswith("model.")]
            theirs, ours = ({key: saved_value(values, key) for key in keys} for values in (saved, now))
        elif self.is_classifier:
            theirs, ours = {"model.backbone": saved["model.name"]}, {"model.backbone": now["model.backbone"]}
        else:
            raise CheckpointError(f"{self.path} is of a detector, expected one of a classifier")
        remedy = "Give the model.* of the run that wrote it, or another file by --init-from"
        require_same(theirs, ours, self.path, remedy)


def read_starting_weights(path: Path) -> StartingWeights:
    """Read a checkpoint of this project, or a state dict that timm can read (.pth, .safetensors), to the CPU.

    No code in the file is run. Raises CheckpointError for a file that is neither, cannot be read, or has
    values that are not finite.
    """
    try:
        content = read_checkpoint(path)
    except ForeignFile:
        tensors = _read_state_dict(path)
        _require_finite(path, tensors)
        return StartingWeights(path, _digest(path), tensors, None)
    average = content.get("ema")
    tensors = content["model"] if average is None else average["weights"]
    _require_finite(path, tensors)
    known = ("step", "experiment", "experiment_hash", "settings", "classes", "data", "phases")
    facts = {key: content[key] for key in known if key in content}
    return StartingWeights(path, _digest(path), tensors, facts | {"averaged": average is not None})


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_state_dict(str(path), weights_only=True)
        others = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    except Exception as error:  # whatever the libraries raise at what is no file of weights
        first_line = (str(error).splitlines() or [""])[0]
        told = "" if isinstance(error, LookupError | AttributeError | EOFError) else f": {first_line}"
        raise CheckpointError(f"{_neither(path)}{told}") from error
    if others or not tensors:
        held = f"what is no tensor: {listed(others)}" if others else "nothing"
        raise CheckpointError(f"{_neither(path)}: it holds {held}")
    return tensors


def _require_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    spoilt = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if spoilt:
        raise CheckpointError(
            f"{path}: weights that are not finite: {listed(spoilt)}; take an earlier checkpoint"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    exact = tensor.float() if tensor.is_floating_point() else tensor  # float8 knows no `isfinite`
    return bool(exact.isfinite().all())


def _kind(experiment: Mapping[str, Any]) -> str:
    return "detector" if "model.architecture" in experiment else "classifier"


def _neither(path: Path) -> str:
    return (
        f"{path}: neither a checkpoint of this project nor a state dict of a timm network, as "
        "torch.save(model.state_dict(), ...) or safetensors write it"
    )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

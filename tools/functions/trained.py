"""Trained PWLUs: from the folder of a run, or one of its checkpoints, to layers; options of the programs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.processes.program import to_path
from engine.records.learned_functions import PARAMETERS
from engine.runs.folder import RunFolder
from engine.training.checkpoint import read_checkpoint
from pwlu import PWLU


@dataclass(frozen=True)
class Trained:
    """A checkpoint, by its `label` in figures; if `averaged`, its averaged weights instead of the last."""

    label: str
    folder: RunFolder
    path: Path
    content: dict[str, Any]
    averaged: bool = False

    @property
    def step(self) -> int:
        return self.content["step"]

    @property
    def is_detector(self) -> bool:
        """Whether train_coco.py trained it: it alone has detectors."""
        return "model.architecture" in self.content["experiment"]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The network's tensors. Raises ValueError if averaged weights are wanted and there are none."""
        if not self.averaged:
            return self.content["model"]
        if self.content["ema"] is None:
            raise ValueError(
                f"--averaged: {self.path} has no averaged weights, since its run had optimizer.ema_decay=0; "
                "leave the option out"
            )
        return self.content["ema"]["weights"]

    def describe(self) -> dict[str, Any]:
        """Return where the weights come from, as plain values without the machine's paths."""
        content, trained_with = self.content, None
        if (manifest := self.folder.read_manifest()) is not None:
            start = manifest["starts"][-1]
            trained_with = {name: start[name] for name in ("code", "hardware", "packages")}
        return {
            "label": self.label,
            "run": self.folder.path.resolve().name,
            "checkpoint": self.path.name,
            "weights": "averaged" if self.averaged else "last",
            "step": self.step,
            "phase": 1 if content["phases"]["step_count"] < content["phases"]["phase1_steps"] else 2,
            "finished": (self.folder.path / "FINISHED").exists(),
            "experiment_hash": content["experiment_hash"],
            "experiment": dict(content["experiment"]),
            "trained_with": trained_with,
        }


def open_trained(path: Path, *, label: str | None = None, averaged: bool = False) -> Trained:
    """Read the last checkpoint of a run folder, or the checkpoint that `path` is.

    Raises:
        ValueError: there is nothing, or no checkpoint of this project that can be read.
    """
    if path.is_dir():
        checkpoint, name = RunFolder(path).checkpoints.last, path.resolve().name
        if not checkpoint.exists():
            raise ValueError(
                f"{path}: no run that has saved anything: {checkpoint} is missing; expected the folder of a "
                "run, or a checkpoint file in it"
            )
    elif path.exists():
        checkpoint = path
        name = f"{path.resolve().parent.parent.name}/{path.stem}"
    else:
        raise ValueError(f"{path}: there is no such run folder or checkpoint")
    folder = RunFolder(checkpoint.parent.parent)
    return Trained(label or name, folder, checkpoint, read_checkpoint(checkpoint), averaged)


def open_all(paths: Sequence[Path], labels: Sequence[str] | None, averaged: bool) -> list[Trained]:
    """Read several. Raises ValueError as `open_trained`, or for labels that are too few or the same."""
    if labels and len(labels) != len(paths):
        raise ValueError(f"--labels: {len(labels)} for {len(paths)} runs; give one for each, in their order")
    opened: dict[str, Trained] = {}
    for number, path in enumerate(paths):
        trained = open_trained(path, label=labels[number] if labels else None, averaged=averaged)
        if trained.label in opened:
            raise ValueError(f"two of the runs are called {trained.label!r}; tell them apart with --labels")
        opened[trained.label] = trained
    return list(opened.values())


def pwlu_layers_of(trained: Trained) -> dict[str, PWLU]:
    """Return the PWLUs of a checkpoint by name, on the CPU. Raises ValueError if it has none."""
    weights = trained.weights  # they are enough: neither network nor images are needed
    prefixes = [key.removesuffix("points") for key in weights if key.split(".")[-1] == "points"]
    layers = {}
    for prefix in prefixes:
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if all(name in own for name in PARAMETERS):
            functions, knots = own["points"].shape
            slopes = own.get("init_slope")  # it starts as PReLUs with these
            layer = PWLU(
                functions,
                num_intervals=knots - 1,
                init="relu" if slopes is None else "leaky_relu",
                init_slope=slopes,
            )
            layer.load_state_dict(own)
            layers[prefix.removesuffix(".")] = layer
    if not layers:
        activation = trained.content["experiment"].get("activation.name")
        raise ValueError(
            f"{trained.path}: no PWLU in this network, its activation is {activation!r}; expected a run with "
            "activation.name=pwlu"
        )
    return layers


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the runs or checkpoints to look at, and `--labels`."""
    add = parser.add_argument
    add("runs", nargs="+", type=to_path, help="run folders (their last checkpoint), or checkpoint files")
    add("--labels", nargs="+", help="names for titles and files, one per run (the folders' names)")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `tools.functions.inputs.open_network` needs, and `--averaged`."""
    add = parser.add_argument
    add("--images", type=int, metavar="N", help="at most so many, evenly spread over the split (all)")
    add("--split", choices=("val", "train"), default="val", help="which images (val)")
    add("--averaged", action="store_true", help="the averaged weights instead of those of the last step")
    text = "replace a value of the run's configuration: --set data.root=... --set runtime.device=cpu"
    add("--set", action="append", default=[], metavar="key=value", help=text)

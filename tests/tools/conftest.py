"""What the tests of the tools share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train_coco
import train_imagenet
from engine.training.checkpoint import read_checkpoint, write_checkpoint
from tests.engine.data.coco.coco_files import write_coco
from tests.training_runs import COCO_SETTINGS


@pytest.fixture(scope="session")
def trained(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs, one of them in phase I; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert train_imagenet.main([*settings, f"output={folder}", "epochs=2", "phase1_epochs=1"]) == 0
    return folder


@pytest.fixture(scope="session")
def detector_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns the folder of a finished run, given architecture and library; not to be changed.

    A narrow detector, trained when it is first asked for: two steps, one in phase I, on twelve images; seven
    to evaluate on.
    """
    base = tmp_path_factory.mktemp("detectors")
    path = base / "detector.yaml"
    path.write_text(COCO_SETTINGS)
    overrides = [f"data.root={write_coco(base / 'coco')}", "steps=2", "phase1_epochs=0.3"]
    overrides += ["schedule.milestones_steps=[]", "schedule.warmup_steps=1"]

    @functools.cache
    def run(architecture: str, library: str = "torchvision") -> Path:
        folder = base / f"{architecture}_{library}"
        words = [f"model.architecture={architecture}", f"model.library={library}", f"output={folder}"]
        assert train_coco.main(["--config", str(path), *overrides, *words]) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def trained_detector(detector_run: Callable[..., Path]) -> Path:
    """The folder of a finished run of a Mask R-CNN; not to be changed."""
    return detector_run("mask_rcnn")


@pytest.fixture(scope="session")
def altered() -> Callable[..., Path]:
    """Makes a run folder like `run` in `folder`, whose last checkpoint has other parts, given by keyword."""

    def alter(run: Path, folder: Path, **changes: Any) -> Path:
        content = read_checkpoint(run / "checkpoints" / "last.pt")
        (folder / "checkpoints").mkdir(parents=True)
        write_checkpoint(folder / "checkpoints" / "last.pt", content | changes)
        (folder / "config.yaml").write_text((run / "config.yaml").read_text())
        return folder

    return alter

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.runs.folder import Identity, RunFolder
from engine.training.checkpoint import CheckpointError


def identity(**changes: Any) -> Identity:
    experiment = {"seed": 0, "optimizer.peak_lr": 0.1} | changes
    settings = {"seed": 0, "optimizer": {"peak_lr": 0.1}, "runtime": {"amp": "off"}}
    return Identity(settings, experiment, "abc", {"num_train": 100})


def refuse(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def saved(folder: RunFolder, who: Identity, step: int = 1) -> None:
    folder.checkpoints.save({"step": step, "experiment": who.experiment, "data": who.data})


def test_a_new_folder_gets_settings_and_manifest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    assert folder.open(identity(), refuse) is None
    folder.add_start({"step": 0, "device": "cpu"})
    folder.add_start({"step": 7, "device": "cuda"})
    assert yaml.safe_load(folder.config.read_text()) == identity().settings
    assert json.loads(folder.manifest.read_text()) == {
        "experiment_hash": "abc",
        "experiment": {"seed": 0, "optimizer.peak_lr": 0.1},
        "data": {"num_train": 100},
        "starts": [{"step": 0, "device": "cpu"}, {"step": 7, "device": "cuda"}],
    }


def test_the_same_run_goes_on_and_keeps_its_starts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    folder.add_start({"step": 0})
    saved(folder, identity(), step=5)
    checkpoint = folder.open(identity(), refuse)
    assert checkpoint is not None and checkpoint["step"] == 5
    assert json.loads(folder.manifest.read_text())["starts"] == [{"step": 0}]


@pytest.mark.parametrize("evidence", ["checkpoint", "records", "foreign checkpoint"])
def test_another_experiment_is_refused_by_its_keys(evidence: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    if evidence == "records":
        folder.metrics.write_text('{"kind": "train", "step": 1}\n')
    else:
        saved(folder, identity())
    if evidence == "foreign checkpoint":  # copied here from another run
        folder.manifest.unlink()
    with pytest.raises(CheckpointError, match=r"peak_lr was 0.1, is now 0.2\. .*output="):
        folder.open(identity(**{"optimizer.peak_lr": 0.2}), refuse)


def test_a_start_that_came_to_nothing_binds_to_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    folder.open(identity(seed=1), refuse)
    assert json.loads(folder.manifest.read_text())["experiment"]["seed"] == 1


def test_other_data_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    saved(folder, identity())
    changed = Identity(identity().settings, identity().experiment, "abc", {"num_train": 99})
    with pytest.raises(CheckpointError, match="num_train was 100, is now 99"):
        folder.open(changed, refuse)


def test_beginning_again_over_records_is_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    folder.metrics.write_text('{"kind": "train", "step": 1}\n')
    warnings: list[str] = []
    assert folder.open(identity(), warnings.append) is None
    assert "records of an earlier start but no checkpoint: beginning again at step 0" in warnings[0]


def test_markers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.final_metrics(identity().experiment) is None
    folder.open(identity(), refuse)
    folder.mark_requeue(3, "SIGTERM")
    assert json.loads((tmp_path / "REQUEUE").read_text()) == {"step": 3, "signal": "SIGTERM"}
    folder.open(identity(), refuse)
    assert not (tmp_path / "REQUEUE").exists()
    folder.mark_finished({"top1": 70.0})
    assert folder.final_metrics(identity().experiment) == {"top1": 70.0}
    with pytest.raises(CheckpointError, match="seed was 0, is now 4"):
        folder.final_metrics(identity(seed=4).experiment)


def test_half_written_files_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(identity(), refuse)
    saved(folder, identity())
    leftovers = [tmp_path / "manifest.json.writing", tmp_path / "checkpoints" / "next.pt.writing"]
    for leftover in leftovers:
        leftover.write_text("half")
    assert folder.open(identity(), refuse) is not None
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_folder_with_a_strangers_manifest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("not json")
    with pytest.raises(CheckpointError, match=r"manifest\.json: not a manifest of this project"):
        RunFolder(tmp_path).open(identity(), refuse)
    assert (tmp_path / "manifest.json").read_text() == "not json"


def test_checkpoints_hold_plain_types_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    saved(folder, identity())
    assert torch.load(folder.checkpoints.last, weights_only=True)["experiment"]["seed"] == 0

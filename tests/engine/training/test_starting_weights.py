"""Which files a run may start from, and what of them fits an experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.config.experiment import Experiment
from engine.data.classes import named, numbered
from engine.training.checkpoint import CheckpointError, DamagedCheckpoint, write_checkpoint
from engine.training.starting_weights import StartingWeights, read_starting_weights
from tests.engine.training.test_checkpoint import FOREIGN

WEIGHTS = {"weight": torch.tensor([1.0, 2.0])}
VALUES = {
    "model.name": "resnet18",
    "activation.name": "pwlu",
    "activation.num_intervals": 16,
    "activation.mode": "channel",
    "phase1_epochs": 0.0,
}


def experiment(**values: Any) -> Experiment:
    newer = {"activation.init": "relu", "activation.init_slope": 0.25}
    changed = {key.replace("__", "."): value for key, value in values.items()}
    return Experiment({}, VALUES | newer | changed, "abc")


def write(path: Path, *, step_count: int = 9, averaged: bool = False, **values: Any) -> StartingWeights:
    """Write a checkpoint of another experiment, of before the newer keys, and read it to start from it."""
    content = {
        "step": 9,
        "model": WEIGHTS,
        "ema": {"updates": 3, "weights": {"weight": torch.tensor([3.0, 4.0])}} if averaged else None,
        "phases": {"step_count": step_count, "phase1_steps": 5},
        "settings": {"activation": {"name": "pwlu"}, "data": {"image_size_px": 32}},
        "experiment": VALUES | {key.replace("__", "."): value for key, value in values.items()},
        "experiment_hash": "1234",
        "classes": named("ab", "photos").plain(),
        "data": {},
    }
    write_checkpoint(path, content)
    return read_starting_weights(path)


def test_a_checkpoint_gives_its_averaged_weights_if_it_has_any(tmp_path: Path) -> None:
    plain, averaged = (write(tmp_path / f"{word}.pt", averaged=word) for word in (False, True))
    assert plain.tensors["weight"].tolist() == [1, 2] and averaged.tensors["weight"].tolist() == [3, 4]
    assert plain.describe().endswith("False.pt, step 9") and averaged.describe().endswith(
        ", the averaged weights"
    )
    assert (plain.activation, plain.input_size) == ({"name": "pwlu"}, (3, 32, 32))
    facts = plain.facts()["init_from"]
    assert (facts["path"], facts["step"], facts["experiment_hash"]) == (str(plain.path), 9, "1234")
    assert len(facts["sha256"]) == 64 and plain.digest != averaged.digest
    assert read_starting_weights(plain.path).digest == plain.digest


STATE_DICTS: dict[str, Callable[[Path], Any]] = {
    "w.pth": lambda path: torch.save(WEIGHTS, path),
    "old.pth": lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    "w.safetensors": lambda path: save_file(WEIGHTS, path),
    "timm.pth.tar": lambda path: torch.save({"epoch": 3, "state_dict": WEIGHTS}, path),
    "ddp.pt": lambda path: torch.save({"module.weight": WEIGHTS["weight"]}, path),
    "model.pt": lambda path: torch.save({"model": WEIGHTS}, path),
    "float8.pt": lambda path: torch.save({"weight": WEIGHTS["weight"].to(torch.float8_e4m3fn)}, path),
    "parameters.pt": lambda path: torch.save({"weight": nn.Parameter(WEIGHTS["weight"])}, path),
}


@pytest.mark.parametrize("name", STATE_DICTS)
def test_a_state_dict_is_read_however_it_was_saved(name: str, tmp_path: Path) -> None:
    STATE_DICTS[name](tmp_path / name)
    start = read_starting_weights(tmp_path / name)
    assert list(start.tensors) == ["weight"] and start.tensors["weight"].float().tolist() == [1, 2]
    assert (start.activation, start.input_size, start.has_learned) == ({"name": "original"}, None, False)
    assert not start.keeps_activations(experiment()) and start.has_classes(named("xyz", "photos"))


@pytest.mark.parametrize("kind", sorted(FOREIGN.keys() - {"bare weights"}))
def test_what_holds_no_weights_is_refused(kind: str, tmp_path: Path) -> None:
    FOREIGN[kind](tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match=r"x\.pt: neither a checkpoint of this project nor a state dict"
    ):
        read_starting_weights(tmp_path / "x.pt")


def test_what_lies_between_the_weights_is_named(tmp_path: Path) -> None:
    torch.save({"model_state_dict": WEIGHTS, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"it holds what is no tensor: 2 \(model_state_dict, epoch\)"):
        read_starting_weights(tmp_path / "x.pt")


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    torch.save(WEIGHTS | {"bias": torch.tensor([torch.nan])}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: weights that are not finite: 1 \(bias\)"):
        read_starting_weights(tmp_path / "x.pt")


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedCheckpoint, match="x.pt: this checkpoint is damaged"):
        read_starting_weights(path)
    for missing, words in ((tmp_path / "y.pt", "No such file"), (tmp_path, "directory; name a file in it")):
        with pytest.raises(CheckpointError, match=f"{missing}: cannot read this checkpoint: .*{words}"):
            read_starting_weights(missing)


def test_activations_stay_where_the_experiment_has_the_same(tmp_path: Path) -> None:
    start = write(tmp_path / "x.pt")
    assert start.has_learned and start.keeps_activations(experiment())
    assert start.keeps_activations(experiment(activation__init="silu"))  # they have left their start
    assert not start.keeps_activations(experiment(activation__num_intervals=8))
    assert not start.keeps_activations(experiment(activation__mode="layer"))
    assert not start.keeps_activations(experiment(activation__name="relu", phase1_epochs=5.0))
    with pytest.raises(CheckpointError, match=r"x.pt has PWLUs that have learned, .*phase1_epochs=0"):
        start.keeps_activations(experiment(phase1_epochs=5.0))
    prelu = write(tmp_path / "prelu.pt", activation__name="prelu")
    assert prelu.keeps_activations(
        experiment(activation__name="prelu", activation__num_intervals=8, phase1_epochs=5.0)
    )


def test_a_checkpoint_of_phase_one_has_learned_nothing(tmp_path: Path) -> None:
    start = write(tmp_path / "x.pt", step_count=4)
    assert not start.has_learned
    assert start.keeps_activations(experiment(phase1_epochs=5.0))
    assert start.keeps_activations(experiment(activation__init="replaced"))
    assert not start.keeps_activations(experiment(activation__init="silu"))


def test_another_network_is_named_by_its_keys(tmp_path: Path) -> None:
    start = write(tmp_path / "x.pt", model__name="resnet50")
    with pytest.raises(CheckpointError, match="model.name was 'resnet50', is now 'resnet18'. Give the model"):
        start.keeps_activations(experiment())
    detector = write(tmp_path / "y.pt", model__architecture="retinanet")
    with pytest.raises(CheckpointError, match="architecture was 'retinanet', is now 'mask_rcnn'"):
        detector.keeps_activations(experiment(model__architecture="mask_rcnn"))
    with pytest.raises(CheckpointError, match="y.pt is of a detector, expected one of a classifier"):
        detector.keeps_activations(experiment())


def test_a_classifier_is_a_detector_s_backbone_where_that_has_its_name(tmp_path: Path) -> None:
    start = write(tmp_path / "x.pt")
    assert start.is_classifier and not write(tmp_path / "y.pt", model__architecture="mask_rcnn").is_classifier
    detector = {"model__architecture": "mask_rcnn", "model__backbone": "resnet18", "phase1_epochs": 5.0}
    assert not start.keeps_activations(experiment(**detector))
    with pytest.raises(CheckpointError, match="model.backbone was 'resnet18', is now 'resnet34'. Give the"):
        start.keeps_activations(experiment(**detector | {"model__backbone": "resnet34"}))


def test_classes_are_the_same_by_name_and_else_by_number(tmp_path: Path) -> None:
    start = write(tmp_path / "x.pt")
    assert start.has_classes(named("ab", "other")) and start.has_classes(numbered(2, "shards"))
    assert not start.has_classes(named("ba", "other")) and not start.has_classes(numbered(3, "shards"))

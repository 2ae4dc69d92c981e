"""`--init-from`, `model.pretrained` and `optimizer.train_only` from the outside."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import timm
import torch

import train_coco
import train_imagenet
from engine.config.load import ConfigError
from engine.processes.program import EXIT_STOPPED
from engine.training.checkpoint import CheckpointError
from tests import fault_injection
from tests.engine.data.coco.coco_files import write_coco
from tests.test_train_imagenet import signal_at_start
from tests.training_runs import COCO_SETTINGS, KILLED, assert_same_bits, records, run, weights

SHORT = ["epochs=1", "phase1_epochs=0", "schedule.warmup_epochs=0", "optimizer.peak_lr=0.01"]
ALONE = [*SHORT, "activation.init=replaced", "optimizer.train_only=activation"]


@pytest.fixture(scope="module")
def source(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a network that was trained with PReLU, with averaged weights."""
    folder = tmp_path_factory.mktemp("source")
    words = ["activation.name=prelu", "epochs=1", "phase1_epochs=0", "schedule.warmup_epochs=0"]
    assert train_imagenet.main([*settings, f"output={folder}", *words]) == 0
    return folder / "checkpoints" / "last.pt"


def start(settings: list[str], folder: Path, source: Path, *words: str) -> list[str]:
    return [*settings, f"output={folder}", "--init-from", str(source), *words]


def test_activations_alone_learn_on_two_processes_and_a_killed_run_goes_on(
    settings: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, died = tmp_path / "whole", tmp_path / "died"
    outcome = run(tmp_path / "logs", start(settings, whole, source, *ALONE), processes=2)
    assert outcome.statuses == [0, 0], outcome.output
    assert outcome.outputs[1] == ""
    said = outcome.outputs[0]
    assert f"starting from {source}, step 3, the averaged weights\n" in said
    assert "calibrated 10 of 10 sites on " in said and "WARNING" not in said
    compared = next(line for line in said.splitlines() if line.startswith("validation with the activations"))
    before, after = (float(part.split("top1 ")[1].split()[0]) for part in compared.split(";"))
    assert abs(before - after) <= 100 / 15  # one of 15 images
    first, *_ = records(whole)
    assert (first["kind"], first["step"]) == ("conversion", 0)
    assert (first["top1_before"], first["top1_after"]) == pytest.approx((before, after), abs=0.005)
    of_source = records(source.parents[1])[-1]  # of its averaged weights
    assert first["loss_before"] == pytest.approx(of_source["ema_loss"], rel=1e-4)
    assert 0 < first["largest_change"] < 0.1 * first["largest_output"]
    trained = torch.load(source)["ema"]["weights"]
    frozen = [name for name in trained if f"/model/{name}" in weights(whole)]
    assert len(trained) - len(frozen) == 10  # PReLU's slopes
    for name in frozen:
        for part in ("model", "ema/weights"):
            assert torch.equal(weights(whole)[f"/{part}/{name}"], trained[name]), name
    assert any(name.endswith("momentum_buffer") for name in weights(whole))
    fault = partial(fault_injection.die_in_step, victim=1, step=3)
    arguments = start(settings, died, source, *ALONE)
    assert KILLED in run(tmp_path / "logs", arguments, processes=2, fault=fault).statuses
    outcome = run(tmp_path / "logs", arguments, processes=2)
    assert outcome.statuses == [0, 0] and "calibrated" not in outcome.output, outcome.output
    assert_same_bits(weights(died), weights(whole))
    assert records(died) == records(whole)
    start_of_run = json.loads((whole / "manifest.json").read_text())["starts"][0]
    assert start_of_run["init_from"]["path"] == str(source) and start_of_run["init_from"]["step"] == 3
    best = str(whole / "checkpoints" / "best.pt")
    evaluated = [*settings, f"output={whole}", *ALONE, "--eval", best]
    assert train_imagenet.main(evaluated) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    best_record = max(
        (entry for entry in records(whole) if entry["kind"] == "eval"), key=lambda entry: entry["ema_top1"]
    )
    assert result["ema_top1"] == best_record["ema_top1"]


def test_a_run_goes_on_from_the_same_weights_only(settings: list[str], source: Path, tmp_path: Path) -> None:
    assert train_imagenet.main(start(settings, tmp_path, source, *SHORT)) == 0
    other = source.with_name("previous.pt")
    for arguments in (start(settings, tmp_path, other, *SHORT), [*settings, f"output={tmp_path}", *SHORT]):
        with pytest.raises(CheckpointError, match="--init-from was sha256:[0-9a-f]{16}, is "):
            train_imagenet.main(arguments)
    (tmp_path / "FINISHED").unlink()
    with pytest.raises(CheckpointError, match="--init-from was sha256:.* is now not given"):
        train_imagenet.main([*settings, f"output={tmp_path}", *SHORT])
    moved = tmp_path / "moved.pt"
    moved.write_bytes(source.read_bytes())  # it is the content that counts
    assert train_imagenet.main(start(settings, tmp_path, moved, *SHORT)) == 0
    assert (tmp_path / "FINISHED").exists()


def test_a_run_goes_on_without_the_file_that_it_started_from(
    settings: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = tmp_path / "lost.pt"
    shutil.copy(source, lost)
    arguments = start(settings, tmp_path / "run", lost, *SHORT, "activation.init=replaced")
    assert train_imagenet.main(arguments) == 0
    trained = weights(tmp_path / "run")
    lost.unlink()
    (tmp_path / "run" / "FINISHED").unlink()
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.rename(last.with_name("next.pt"))  # as after a death while it was being put in place
    capsys.readouterr()
    assert train_imagenet.main(arguments) == 0
    assert "lost.pt: no such file now; the run goes on" in capsys.readouterr().out
    assert_same_bits(weights(tmp_path / "run"), trained)  # PReLU's slopes too
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="lost.pt: cannot read this checkpoint: No such file"):
        train_imagenet.main(arguments)


def test_phase_one_needs_the_file_whose_activations_are_the_start(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SiLU in a network of ReLUs: neither the configuration nor the run's own checkpoint tells that."""
    assert train_imagenet.main([*settings, f"output={tmp_path / 'a'}", "activation.name=swish", *SHORT]) == 0
    source, lost = tmp_path / "a" / "checkpoints" / "best.pt", tmp_path / "lost.pt"
    shutil.copy(source, lost)
    words = ["activation.init=replaced", "epochs=1", "phase1_epochs=1", "schedule.warmup_epochs=0"]
    arguments = start(settings, tmp_path / "b", lost, *words)
    assert run(tmp_path / "logs", arguments, fault=signal_at_start).statuses == [EXIT_STOPPED]
    lost.unlink()
    with pytest.raises(CheckpointError, match=r"phase I, .*: 10 \(conv1.2, .* give --init-from with that"):
        train_imagenet.main(arguments)
    last = str(tmp_path / "b" / "checkpoints" / "last.pt")
    with pytest.raises(CheckpointError, match="to evaluate, take a checkpoint of phase II"):
        train_imagenet.main([*settings, f"output={tmp_path / 'b'}", *words, "--eval", last])
    shutil.copy(source, lost)
    capsys.readouterr()
    assert train_imagenet.main(arguments) == 0
    assert "resuming at step 1, from its own checkpoint and not from " in capsys.readouterr().out


def test_learned_functions_go_on_and_other_classes_get_a_new_head(
    settings: list[str], images: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        train_imagenet.main(start(settings, tmp_path / "a", source, *SHORT, "activation.init=replaced")) == 0
    )
    first = tmp_path / "a" / "checkpoints" / "last.pt"
    capsys.readouterr()
    still = [*SHORT, "optimizer.peak_lr=1e-30", "optimizer.ema_decay=0"]
    assert train_imagenet.main(start(settings, tmp_path / "b", first, *still)) == 0
    said = capsys.readouterr().out
    assert "the activations go on as they were trained" in said and "calibrated" not in said
    old, new = (weights(tmp_path / name) for name in ("a", "b"))
    points = [
        name for name in new if name.startswith("/model/") and name.endswith((".points", ".init_slope"))
    ]
    assert len(points) == 20
    for name in points:
        assert torch.equal(new[name], old[name.replace("/model/", "/ema/weights/")])
    with pytest.raises(CheckpointError, match="phase I would reset them .*phase1_epochs=0"):
        train_imagenet.main(start(settings, tmp_path / "c", first, "optimizer.ema_decay=0"))
    shutil.copytree(images, tmp_path / "images")
    for split in ("train", "val"):
        (tmp_path / "images" / split / "ant").rename(tmp_path / "images" / split / "zebra")
    words = [*SHORT, f"data.root={tmp_path / 'images'}", "optimizer.train_only=activation"]
    assert train_imagenet.main(start(settings, tmp_path / "d", first, *words)) == 0
    said = capsys.readouterr().out
    assert "the layers that tell the classes are new" in said
    assert "leaves the layers that tell the classes at random" in said


def test_a_start_that_changes_functions_is_a_warning_with_the_remedy(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain state dict of timm's, in two phases: nothing is calibrated."""
    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    words = ["model.name=test_efficientnet", "epochs=1", "phase1_epochs=1", "schedule.warmup_epochs=0"]
    arguments = start(settings, tmp_path / "run", tmp_path / "weights.pth", *words)
    assert train_imagenet.main(arguments) == 0
    said = capsys.readouterr().out
    assert "weights.pth, a state dict" in said and "calibrated" not in said
    assert "WARNING: the weights were trained with other functions" in said
    assert "(SiLU)" in said and "activation.init=replaced" in said
    assert "validation with the activations that were there: top1 " in said


def test_weights_from_two_places_and_random_ones_that_stay(
    settings: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"last\.pt and model.pretrained=true each give the weights"):
        train_imagenet.main(start(settings, tmp_path, source, "model.pretrained=true"))
    with pytest.raises(SystemExit):
        train_imagenet.main([*start(settings, tmp_path, source), "--eval", str(source)])
    assert "not allowed with argument" in capsys.readouterr().err
    words = [*SHORT, "optimizer.train_only=activation", f"output={tmp_path}"]
    assert train_imagenet.main([*settings, *words]) == 0
    assert "leaves all other weights at random" in capsys.readouterr().out


def test_timm_s_weights_are_converted_and_not_needed_to_evaluate(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "num_classes": 3, "mean": (0.5, 0.5, 0.5)}
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", partial(timm.create_model, pretrained_cfg_overlay=overlay))
        words = [*SHORT, "model.pretrained=true", f"output={tmp_path / 'run'}"]
        assert train_imagenet.main([*settings, *words]) == 0
    said = capsys.readouterr().out
    assert "calibrated 10 of 10" in said and "with the activations that were there: top1" in said
    assert "images normalised by mean (0.5, 0.5, 0.5)" in said and "other functions" not in said
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    assert train_imagenet.main([*settings, f"output={tmp_path / 'run'}", "--eval", str(best)]) == 0


def test_a_stop_before_the_first_step_leaves_out_the_comparison(
    settings: list[str], source: Path, tmp_path: Path
) -> None:
    arguments = start(settings, tmp_path, source, *ALONE)
    outcome = run(tmp_path / "logs", arguments, fault=signal_at_start)
    assert outcome.statuses == [EXIT_STOPPED], outcome.output
    assert "calibrated 10 of 10" in outcome.output and "that were there" not in outcome.output
    assert torch.load(tmp_path / "checkpoints" / "last.pt")["step"] == 1


def test_a_detector_starts_from_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(COCO_SETTINGS)
    root = write_coco(tmp_path / "coco")
    settings = ["--config", str(path), f"data.root={root}", "steps=2", "schedule.milestones_steps=[]"]
    settings += ["schedule.warmup_steps=0", "phase1_epochs=0"]
    assert train_coco.main([*settings, f"output={tmp_path / 'a'}", "activation.name=relu"]) == 0
    first = tmp_path / "a" / "checkpoints" / "last.pt"
    capsys.readouterr()
    assert train_coco.main(start(settings, tmp_path / "b", first, "activation.init=replaced")) == 0
    said = capsys.readouterr().out
    assert (
        "calibrated 23 of 23 sites on 6 batches; outputs cannot be compared" in said
        and "other functions" not in said
    )
    assert "from the function that they start as: model.backbone" in said  # 6 intervals are few
    assert "validation with the activations that were there: bbox_AP " in said

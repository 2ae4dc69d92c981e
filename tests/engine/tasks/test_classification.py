from pathlib import Path

import pytest
import torch
from torch import nn

from engine.amp import Precision
from engine.data import build_data
from engine.processes.distributed import World
from engine.tasks.classification import Classification

CPU = torch.device("cpu")


def task(root: Path, world: World | None = None, **changes: object) -> Classification:
    options = {"kind": "imagefolder", "image_size_px": 16, "augmentation": "none", "eval_crop_ratio": 1.0}
    broken = str(changes.pop("broken_images", "error"))
    data = build_data(root=str(root), seed=0, broken_images=broken, **options)
    settings = {
        "global_batch_size": 8,
        "device_batch_size": 2,
        "workers": 0,
        "label_smoothing": 0.0,
    } | changes
    return Classification(data=data, world=world or World(), precision=Precision("off", CPU), **settings)


def test_steps_are_cut_into_micro_batches(images: Path) -> None:
    steps = list(task(images).batches(epoch=0, start_step=0))
    assert [[len(labels) for _, labels in step] for step in steps] == [[2, 2, 2, 2]] * 3
    resumed = list(task(images).batches(epoch=0, start_step=2))
    assert len(resumed) == 1
    for (image, label), (expected_image, expected_label) in zip(resumed[0], steps[2], strict=True):
        assert torch.equal(image, expected_image) and torch.equal(label, expected_label)


def test_two_processes_get_different_halves_of_each_step(images: Path) -> None:
    whole = next(task(images).batches(epoch=1, start_step=0))
    halves = [next(task(images, World(rank=rank, size=2)).batches(1, 0)) for rank in range(2)]
    assert [len(half) for half in halves] == [2, 2]
    together = torch.cat([image for half in halves for image, _ in half])
    assert torch.equal(together, torch.cat([image for image, _ in whole]))


def test_label_smoothing_by_hand(images: Path) -> None:
    """Label 0 of three, smoothing s: the target is 1 - s + s/3 for the first class, s/3 for the others."""
    smoothed = task(images, label_smoothing=0.3)
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    log_probabilities = logits.log_softmax(1)[0]
    expected = -(0.8 * log_probabilities[0] + 0.1 * log_probabilities[1] + 0.1 * log_probabilities[2])
    loss = smoothed.losses(nn.Identity(), (logits, torch.tensor([0])))["cross_entropy"]
    assert loss.item() == pytest.approx(expected.item())


def test_evaluation_sees_every_image(images: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    evaluation = task(images).evaluate(model, lambda: False)
    assert evaluation is not None and evaluation.metrics["images"] == 15
    assert task(images).facts() == {"num_train": 24, "num_val": 15, "num_classes": 3}
    assert task(images).describe() == (
        "24 training and 15 validation images in 3 classes\n"
        "3 steps per epoch, each of 8 images: 1 x cpu x 4 micro-batches x 2"
    )


def test_a_skipped_image_is_named_once_and_counted(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "images"
    for source in images.rglob("*.jpg"):
        target = copy / source.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    broken = sorted((copy / "val").rglob("*.jpg"))[0]
    broken.write_bytes(b"not a picture")
    tolerant = task(copy, broken_images="skip")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    for _ in range(2):
        evaluation = tolerant.evaluate(model, lambda: False)
        assert evaluation is not None and evaluation.metrics["images"] == 14
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and "skipped broken image 1:" in printed[0] and broken.name in printed[0]

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.amp import Precision
from engine.data import ImageOptions, build_data
from engine.processes.distributed import World
from engine.tasks.classification import Batch, Classification, evaluate_classifier
from tests.training_runs import run_function

CPU = torch.device("cpu")


def task(root: Path, world: World | None = None, **changes: object) -> Classification:
    options = {"image_size_px": 16, "broken_images": changes.pop("broken_images", "error"), "workers": 0}
    data = build_data(ImageOptions(root=str(root), **options), seed=0)
    settings = {"global_batch_size": 8, "device_batch_size": 2, "label_smoothing": 0.0} | changes
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
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    loss = smoothed.losses(lambda images: logits, (image, torch.tensor([0])))["cross_entropy"]
    assert loss.item() == pytest.approx(expected.item())


def test_a_skipped_image_is_named_once_and_counted(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(images, tmp_path / "images")
    broken = sorted((copy / "val").rglob("*.jpg"))[0]
    broken.write_bytes(b"not a picture")
    tolerant = task(copy, broken_images="skip")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    for _ in range(2):
        evaluation = tolerant.evaluate(model, lambda: False)
        assert evaluation is not None and evaluation.metrics["images"] == 14
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and "skipped broken image 1:" in printed[0] and broken.name in printed[0]


def logits_and_labels(images: int, classes: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, classes, generator=generator), torch.randint(
        classes, (images,), generator=generator
    )


def batches_of(data: Batch, size: int) -> list[Batch]:
    return list(zip(data[0].split(size), data[1].split(size), strict=True))


def evaluate(batches: list[Batch], world: World | None = None) -> dict[str, float] | None:
    """The model passes its input on, so the inputs are the logits."""
    return evaluate_classifier(
        nn.Identity(), batches, world=world or World(), precision=Precision("off", CPU)
    )


@pytest.mark.parametrize("size", [1, 7, 100])
def test_equals_the_definition_however_the_images_are_batched(size: int) -> None:
    logits, labels = logits_and_labels(100, 10)
    metrics = evaluate(batches_of((logits, labels), size))
    order = logits.argsort(dim=1, descending=True)
    assert metrics is not None
    assert metrics["top1"] == 100 * (order[:, 0] == labels).double().mean().item()
    assert metrics["top5"] == 100 * (order[:, :5] == labels[:, None]).any(1).double().mean().item()
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-6)
    assert metrics["images"] == 100


def test_fewer_than_five_classes() -> None:
    metrics = evaluate(batches_of(logits_and_labels(20, 3), 6))
    assert metrics is not None and metrics["top5"] == 100.0 and 0 < metrics["top1"] < 100


def test_every_mode_of_the_model_is_put_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    statistics = model[0].running_mean.clone()
    options = {"world": World(), "precision": Precision("bf16", CPU)}
    evaluate_classifier(model, batches_of(logits_and_labels(8, 3), 4), **options)
    assert model.training and torch.equal(model[0].running_mean, statistics)


def test_no_image_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a single image"):
        evaluate([])


def test_a_wish_to_stop_ends_it_without_a_result() -> None:
    seen = []

    def batches():
        for batch in batches_of(logits_and_labels(20, 3), 5):
            seen.append(batch)
            yield batch

    stopped = evaluate_classifier(
        nn.Identity(),
        batches(),
        world=World(),
        precision=Precision("off", CPU),
        should_stop=lambda: len(seen) == 2,
    )
    assert stopped is None and len(seen) == 2


def evaluate_share(world: World) -> list[dict[str, float] | None]:
    """Give rank 0 three images more than rank 1, then all to rank 1; then let rank 1 ask for a stop."""
    data = logits_and_labels(21, 10)
    mine = tuple(part[:12] if world.is_main else part[12:] for part in data)
    everything = batches_of(data, 4)
    stopped = evaluate_classifier(
        nn.Identity(),
        everything,
        world=world,
        precision=Precision("off", CPU),
        should_stop=lambda: world.rank == 1,
    )
    return [
        evaluate(batches_of(mine, 4), world),
        evaluate([] if world.is_main else everything, world),
        stopped,
    ]


def test_two_processes_count_each_image_once(tmp_path: Path) -> None:
    expected = evaluate(batches_of(logits_and_labels(21, 10), 4))
    assert expected is not None
    first, second = run_function(evaluate_share, processes=2, folder=tmp_path)
    assert first == second
    for metrics in first[:2]:
        assert {name: metrics[name] for name in ("top1", "top5", "images")} == {
            name: expected[name] for name in ("top1", "top5", "images")
        }
        assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert first[2] is None

"""Loading processes live as long as their data, whatever starts them; what they read stays the same."""

import gc
import multiprocessing
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.data import ImageData, ImageOptions, build_data
from engine.data.coco import CocoOptions, build_coco_data
from tests.engine.data.coco.coco_files import write_coco
from tests.engine.data.loading import train_loader, val_loader
from tests.engine.image_files import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos")


@pytest.fixture(params=["fork", "spawn"])  # a server of forks would be that of other tests too
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def photos(root: Path, **options: Any) -> ImageData:
    return build_data(ImageOptions(root=str(root), image_size_px=16, **options), seed=0)


def processes() -> set[int]:
    gc.collect()
    return {process.pid for process in multiprocessing.active_children() if process.pid}


def equal(one: Any, other: Any) -> bool:
    return all(
        torch.equal(*pair) for batches in zip(one, other, strict=True) for pair in zip(*batches, strict=True)
    )


def test_the_same_processes_read_every_epoch_and_evaluation(folder: Path, start_method: str) -> None:
    here = photos(folder, workers=0)
    expected = [list(train_loader(here, epoch=epoch)) for epoch in (0, 1)]
    others = processes()
    data = photos(folder, workers=2 if start_method == "fork" else 1)
    found = iter(train_loader(data, epoch=0))
    assert equal(list(islice(found, 3)), expected[0][:3])  # a pause in mid-epoch
    started = processes() - others
    assert len(started) == data.workers
    del found
    assert equal(list(val_loader(data)), list(val_loader(here)))
    assert equal(list(train_loader(data, epoch=0, start_step=1)), expected[0][2:])
    assert equal(list(train_loader(data, epoch=1)), expected[1])
    assert processes() - others == started
    del data
    assert processes() == others


def test_a_detectors_processes_live_on_too(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    options = {"root": str(root), "shorter_side_px": 24, "longer_side_px": 30}
    data, here = (
        build_coco_data(CocoOptions(workers=workers, **options), with_masks=True, seed=0)
        for workers in (1, 0)
    )
    others = processes()
    cut = {"global_batch_size": 4, "micro_batch_size": 2}
    started = []
    for epoch in (0, 1):
        for read, expected in (
            (train_loader(data, epoch=epoch, **cut), train_loader(here, epoch=epoch, **cut)),
            (val_loader(data), val_loader(here)),
        ):
            for one, other in zip(read, list(expected), strict=True):
                assert one.image_ids == other.image_ids
                assert all(torch.equal(*images) for images in zip(one.images, other.images, strict=True))
            started.append(processes() - others)
    assert len(started[0]) == 1 and all(pids == started[0] for pids in started)


def test_processes_that_evaluated_before_training_learn_to_train(folder: Path) -> None:
    """A run that resumes where an evaluation is due."""
    here, data = photos(folder, workers=0), photos(folder, workers=1)
    assert equal(list(val_loader(data)), list(val_loader(here)))
    for epoch in (0, 1):
        assert equal(list(train_loader(data, epoch=epoch)), list(train_loader(here, epoch=epoch)))
        assert equal(list(val_loader(data)), list(val_loader(here)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_loader_does_not_go_on_with_batches_of_another(folder: Path, workers: int) -> None:
    data = photos(folder, workers=workers)
    interrupted = iter(train_loader(data))
    next(interrupted)
    assert len(list(val_loader(data))) == 4
    with pytest.raises(RuntimeError, match="another loader"):
        next(interrupted)

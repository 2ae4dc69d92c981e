"""What the tests of the training program share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings as hypothesis_settings

from tests.engine.image_files import write_folder
from tests.training_runs import REPOSITORY, SETTINGS

# Property tests see the same examples every time.
hypothesis_settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=60, database=None
)
hypothesis_settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def importable_for_child_processes() -> Iterator[None]:
    """Let the processes that tests start find the project, wherever pytest was called from."""
    with pytest.MonkeyPatch.context() as patch:
        known = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *([known] if known else [])]))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, which cost much on a machine that is busy otherwise."""
    torch.set_num_threads(1)


CUDA = pytest.param(
    torch.device("cuda"),
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)


@pytest.fixture(params=[torch.device("cpu"), CUDA], ids=str)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that networks are trained on."""
    return request.param


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 3 classes, 24 images to train on and 15 to evaluate on."""
    return write_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def settings(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a run of seconds, all but `output`."""
    path = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    path.write_text(SETTINGS)
    return ["--config", str(path), f"data.root={images}"]

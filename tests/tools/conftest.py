"""What the tests of the tools share."""

from pathlib import Path

import pytest

import train_imagenet


@pytest.fixture(scope="session")
def trained(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs, one of them in phase I; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert train_imagenet.main([*settings, f"output={folder}", "epochs=2", "phase1_epochs=1"]) == 0
    return folder

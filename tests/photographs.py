"""Real photographs for tests, from the folder that PWLU_DATA names."""

import os
import tarfile
from pathlib import Path

import pytest

FOLDER = os.environ.get("PWLU_DATA")
needs_photographs = pytest.mark.skipif(not FOLDER, reason="PWLU_DATA names no folder of photographs")


def unpack(name: str, folder: Path) -> Path:
    """Unpack an archive of photographs into a folder, and return that."""
    assert FOLDER
    with tarfile.open(Path(FOLDER) / name) as archive:
        archive.extractall(folder, filter="data")
    return folder

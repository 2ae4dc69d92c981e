import hashlib
import json
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from engine.data.coco import digits
from engine.data.coco.digits import CANVASES, write_digits
from engine.data.source import DataError
from tests.fault_injection import before, die

# pycocotools 2.0.11 under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Of all pixels and annotations: a change needs a new VERSION.
DIGEST = "55ca6840bc7291e7fd83b4a3e9bc6365e96043273bd3b9a9fefdecd2d937b230"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "nested" / "digits")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of a tenth of a second."""
    monkeypatch.setattr(digits, "CANVASES", {"train2017": 6, "val2017": 3})


def content(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def decoded(annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The mask of an annotation."""
    assert annotation["segmentation"]["size"] == list(size)
    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_pixels_and_annotations_are_the_same_on_every_machine(folder: Path) -> None:
    digest = hashlib.sha256()
    for split in CANVASES:
        images = content(folder, split)["images"]
        for image in images:
            with Image.open(folder / split / image["file_name"]) as opened:
                assert opened.mode == "RGB" and opened.size == (image["width"], image["height"])
                digest.update(opened.tobytes())
        digest.update((folder / "annotations" / f"instances_{split}.json").read_bytes())
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize("split", CANVASES)
def test_annotations_are_what_cocos_code_reads_from_the_masks(folder: Path, split: str) -> None:
    read = content(folder, split)
    sizes = {image["id"]: (image["height"], image["width"]) for image in read["images"]}
    seen = {image: np.zeros(size, bool) for image, size in sizes.items()}
    for annotation in read["annotations"]:
        size = sizes[annotation["image_id"]]
        mask = decoded(annotation, size)
        assert annotation["area"] == mask.sum() > 0
        bounds = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, np.uint8)))
        assert annotation["bbox"] == bounds.tolist()
        assert not (mask & seen[annotation["image_id"]]).any()  # a pixel shows one thing only
        seen[annotation["image_id"]] |= mask


def test_it_has_everything_that_coco_has(folder: Path) -> None:
    for split, (empty, crowds) in {"train2017": (20, 20), "val2017": (4, 4)}.items():
        read = content(folder, split)
        objects = [annotation for annotation in read["annotations"] if not annotation["iscrowd"]]
        per_image = Counter(annotation["image_id"] for annotation in read["annotations"])
        assert len(read["images"]) == CANVASES[split]
        assert CANVASES[split] - len(per_image) == empty
        assert len(read["annotations"]) - len(objects) == crowds
        assert set(Counter(annotation["image_id"] for annotation in objects).values()) == {1, 2, 3, 4}
        per_class = Counter(annotation["category_id"] for annotation in objects)
        assert set(per_class) == set(range(1, 11)) and min(per_class.values()) > len(objects) / 20
        sides = Counter((image["width"], image["height"]) for image in read["images"])
        assert set(sides) == {(128, 96), (96, 128)} and min(sides.values()) > CANVASES[split] / 4
        heights = [annotation["bbox"][3] for annotation in objects]
        assert 16 <= min(heights) < 24 and 52 < max(heights) <= 64
    assert [category["name"] for category in read["categories"]] == list("0123456789")


def test_what_is_there_is_left_as_it_is(tmp_path: Path, few: None) -> None:
    (tmp_path / "digits").mkdir()
    folder = write_digits(str(tmp_path / "digits"))
    assert folder == tmp_path / "digits"
    once = files(folder)
    assert len(once) == 9 + 2 + 1 and write_digits(folder) == folder and files(folder) == once
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, few: None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"root: .* holds other files, not 'digits on canvases, version 2'"):
        write_digits(tmp_path)
    with pytest.raises(DataError, match="holds other files"):
        write_digits(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_of_another_version_is_refused(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_digits(tmp_path / "digits")
    monkeypatch.setattr(digits, "VERSION", 3)
    with pytest.raises(DataError, match="holds 'digits on canvases, version 2', not .* version 3'; name a"):
        write_digits(folder)


def write_and_die(folder: Path, saved: int) -> None:
    before(Image.Image, "save", saved, die)
    write_digits(folder)


def test_a_killed_process_leaves_no_half_of_a_data_set(tmp_path: Path, few: None) -> None:
    folder = tmp_path / "digits"
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(folder, 5))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith("digits.") and not folder.exists()
    assert len(files(write_digits(folder))) == 12


def test_of_two_processes_that_write_at_once_the_first_one_stays(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, taken = tmp_path / "digits", []
    monkeypatch.setattr(os, "rename", os.rename)  # put back afterwards
    before(os, "rename", 1, lambda: taken.append(files(write_digits(folder))))
    assert write_digits(folder) == folder
    assert files(folder) == taken[0] and [path.name for path in tmp_path.iterdir()] == ["digits"]

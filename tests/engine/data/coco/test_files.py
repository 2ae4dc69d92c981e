"""Pictures are found under the names that other systems and programs write, or the cause is named."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data import DataError
from engine.data.coco.annotations import CocoAnnotations
from engine.data.coco.dataset import CocoImages
from tests.engine.data.coco.coco_files import split_content
from tests.engine.image_files import picture

FOLDER = "cam_é"  # the files are in a folder of this name, in NFC


def written(root: Path, names: Callable[[str, str], str], count: int = 3) -> tuple[Path, CocoAnnotations]:
    """Return the folder of pictures, and a file whose names are `names(folder, name)` of each."""
    content = split_content(300, count)
    folder = root / "val"
    (folder / FOLDER).mkdir(parents=True)
    for image in content["images"]:
        name = image["file_name"].replace(".png", "ü.png")
        picture(image["id"], (image["width"], image["height"])).save(folder / FOLDER / name)
        image["file_name"] = names(FOLDER, name)
    path = root / "instances_val.json"
    path.write_text(json.dumps(content))
    return folder, CocoAnnotations(path, with_masks=False, scored=False)


@pytest.mark.parametrize(
    "names",
    [
        lambda folder, name: f"{folder}\\{name}",
        lambda folder, name: f".\\{folder}\\{name}",
        lambda folder, name: unicodedata.normalize("NFD", f"{folder}/{name}"),
        lambda folder, name: unicodedata.normalize("NFD", f"{folder}\\{name}"),
    ],
)
def test_names_of_other_systems_are_found(
    tmp_path: Path, names: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    images = CocoImages(*written(tmp_path, names))
    for index in range(3):
        picture = images.picture(index)
        assert (picture.height, picture.width) == images.size(index)
    (told,) = capsys.readouterr().out.splitlines()
    assert "instances_val.json: 3 of 3 file_names have backslashes or another Unicode form" in told


@pytest.mark.parametrize(
    "names",
    [
        lambda folder, name: f"{folder}/{name}",
        lambda folder, name: f"./{folder}/{name}",
        lambda folder, name: f"../val/{folder}/{name}",
    ],
)
def test_names_that_are_paths_from_the_folder_need_no_word(
    tmp_path: Path, names: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CocoImages(*written(tmp_path, names))) == 3
    assert capsys.readouterr().out == ""


def test_a_name_may_be_an_absolute_path(tmp_path: Path) -> None:
    folder, annotations = written(tmp_path, lambda folder, name: f"{tmp_path}/val/{folder}/{name}")
    assert CocoImages(tmp_path, annotations).picture(0).size == (40, 30)
    assert CocoImages(folder, annotations).picture(1).size == (30, 40)


@pytest.mark.parametrize(
    "names",
    [
        lambda folder, name: f"val/{name}",
        lambda folder, name: f"D:\\data\\coco\\{name}",
        lambda folder, name: f"/home/somebody/coco/{name}",
        lambda folder, name: f"http://images.cocodataset.org/val2017/{name}",
        lambda folder, name: name.replace(".png", ".PNG"),
        lambda folder, name: name.removesuffix(".png"),
        lambda folder, name: name.replace(".png", ".jpg"),
    ],
)
def test_a_name_that_does_not_lead_to_the_file_is_named_beside_it(
    tmp_path: Path, names: Callable[[str, str], str]
) -> None:
    folder, annotations = written(tmp_path, names)
    with pytest.raises(DataError) as caught:
        CocoImages(folder / FOLDER, annotations)
    message = str(caught.value)
    assert "instances_val.json: image 3000: there is no file" in message and "(nor 2 others)" in message
    assert f"but there is {folder / FOLDER}/000000000300ü.png: a file_name is the path from" in message
    assert "download" not in message


def test_missing_pictures_are_counted(tmp_path: Path) -> None:
    folder, annotations = written(tmp_path, lambda folder, name: f"{folder}\\{name}")
    (folder / FOLDER / "000000000301ü.png").unlink()
    with pytest.raises(DataError, match=r"image 3010: there is no file \S+; copy or download the images"):
        CocoImages(folder, annotations)


def test_images_that_share_a_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, annotations = written(tmp_path, lambda folder, name: f"{folder}/000000000301ü.png")
    CocoImages(folder, annotations)
    (told,) = capsys.readouterr().out.splitlines()
    assert "instances_val.json: 2 images have the file of another one" in told
    assert "images 3000 and 3010 are both" in told

import io
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import BrokenImageError, DataError, ImageData, ImageOptions, build_data
from engine.data.classes import named
from engine.data.picture import to_pillow, to_tensor
from tests.engine.data.loading import train_loader, val_loader
from tests.engine.image_files import CLASSES, encoded, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos")


def photos(root: Path, **options: Any) -> ImageData:
    return build_data(ImageOptions(root=str(root), image_size_px=16, **{"workers": 0, **options}), seed=0)


def test_images_classes_and_labels_come_from_the_folders(folder: Path) -> None:
    data = photos(folder)
    assert (data.classes.names, data.num_train, data.num_val) == (CLASSES, 24, 15)
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    expected = Image.open(io.BytesIO(encoded(9)))
    assert np.array_equal(np.asarray(to_pillow(data.train.image(9))), np.asarray(expected))


def test_hidden_names_are_left_out_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = photos(folder)
    assert capsys.readouterr().out == ""
    (folder / "train" / "ant" / "._000.jpg").write_bytes(b"Mac OS X")
    (folder / "train" / "ant" / ".DS_Store").write_bytes(b"no picture, as in every folder of a Mac")
    (folder / "val" / "Thumbs.db").write_bytes(b"no picture")
    for copies in (
        "train/.ipynb_checkpoints",
        "val/ant/.ipynb_checkpoints",
        "train/bee/@eaDir/x",
        "__MACOSX",
    ):
        (folder / copies).mkdir(parents=True)
        (folder / copies / "000.jpg").write_bytes(encoded(0))
    data = photos(folder)
    assert data.classes.names == CLASSES
    for found, expected in ((data.train, clean.train), (data.val, clean.val)):
        assert found.labels.tolist() == expected.labels.tolist()
        assert all(
            torch.equal(to_tensor(found.image(index)), to_tensor(expected.image(index)))
            for index in range(len(expected))
        )
    warning = capsys.readouterr().out
    assert all(f"hidden files and folders: {count} (" in warning for count in (1, 3))
    assert f"{folder}/train/ant/._000.jpg" in warning


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_the_terminal_cannot_show_stop_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding))
    for name in (b"._caf\xe9.jpg", "._caf\u00e9.jpg".encode()):
        Path(os.fsdecode(os.fsencode(folder / "train" / "ant") + b"/" + name)).write_bytes(b"no picture")
    assert photos(folder).num_train == 24
    assert b"files and folders: 2 (" in shown.getvalue() and b"._caf\\udce9.jpg" in shown.getvalue()


def test_upper_case_and_linked_folders_are_read(folder: Path, tmp_path: Path) -> None:
    (folder / "val" / "ant" / "024.jpg").rename(folder / "val" / "ant" / "024.JPG")
    (folder / "val" / "bee").rename(tmp_path / "elsewhere")
    (folder / "val" / "bee").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert photos(folder).num_val == 15


@pytest.mark.parametrize("target", ["..", ".", "../bee"])
def test_links_in_a_circle_are_an_error(folder: Path, target: str) -> None:
    (folder / "train" / "ant" / "x").symlink_to(target, target_is_directory=True)
    (folder / "train" / "bee" / "y").symlink_to("../ant", target_is_directory=True)
    with pytest.raises(DataError, match="train/.*/[xy] is a link to a folder that holds the link"):
        photos(folder)


@pytest.mark.parametrize("name", ["caf\u00e9", "\u00c5ngstr\u00f6m", "\ud55c\uad6d"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_class_names_in_other_unicode_forms_match(folder: Path, name: str, forms: tuple[str, str]) -> None:
    for split, form in zip(("train", "val"), forms, strict=True):
        (folder / split / "ant").rename(folder / split / unicodedata.normalize(form, name))
    data = photos(folder)
    number = data.classes.names.index(unicodedata.normalize("NFC", name))
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    of_class = np.flatnonzero(data.val.labels == number)
    expected = Image.open(io.BytesIO(encoded(24)))
    assert np.array_equal(np.asarray(to_pillow(data.val.image(int(of_class[0])))), np.asarray(expected))


def test_two_folders_of_one_class_name_are_an_error(folder: Path) -> None:
    for form in ("NFC", "NFD"):
        (folder / "train" / unicodedata.normalize(form, "caf\u00e9")).mkdir()
    with pytest.raises(DataError, match=r"train has two folders for the class caf\u00e9.*'cafe\\u0301'.*xe9"):
        photos(folder)


def without_val(root: Path) -> None:
    shutil.rmtree(root / "val")


def without_classes(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def with_an_empty_class(root: Path) -> None:
    (root / "train" / "ape").mkdir()


def without_a_validation_image(root: Path) -> None:
    for file in (root / "val").glob("*/*"):
        file.unlink()


def with_another_class(root: Path) -> None:
    (root / "val" / "cow").rename(root / "val" / "dog")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_val, r"photos/val is not a folder; expected .*photos/val/<class>/\*\.jpg"),
        (without_classes, "photos/train has no class folders"),
        (with_an_empty_class, r"photos/train: no image \(.jpg, .*\) in the classes ape"),
        (without_a_validation_image, r"photos/val: no image \(.jpg, .*\) in the classes ant, bee, cow"),
        (with_another_class, r"photos/val: classes .*photos/train: 1 \('dog'\); missing: 1 \('cow'\)"),
    ],
)
def test_a_folder_that_does_not_fit_is_named(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message):
        photos(folder)


def test_validation_may_lack_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = photos(folder)
    assert capsys.readouterr().out == ""
    shutil.rmtree(folder / "val" / "ant")
    for file in (folder / "val" / "bee").iterdir():
        file.unlink()
    data = photos(folder)
    assert data.val.labels.tolist() == [2] * 5
    assert data.classes == whole.classes
    warning = capsys.readouterr().out
    assert warning.count("WARNING") == 1 and "nothing of 2 ('ant', 'bee') of the 3 classes" in warning


def test_evaluation_takes_the_trained_networks_classes_and_val_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "train")
    with pytest.raises(DataError, match="photos/train is not a folder"):
        photos(folder)
    options = ImageOptions(root=str(folder), image_size_px=16, workers=0)
    trained = named(["yak", "cow", "bee", "ant"], "best.pt")
    data = build_data(options, seed=0, trained=trained)
    assert data.val.labels.tolist() == [3] * 5 + [2] * 5 + [1] * 5
    assert data.classes == trained
    assert "val has nothing of 1 ('yak') of the 4 classes of best.pt" in capsys.readouterr().out
    with pytest.raises(DataError, match="photos/train is not a folder"):
        _ = data.train
    with pytest.raises(DataError, match=r"val: .* best.pt: 2 \('bee', 'cow'\); missing: 1 \('Cow'"):
        build_data(options, seed=0, trained=named(["ant", "Cow"], "best.pt"))


def broken_files(folder: Path) -> list[Path]:
    """Damage a training image in two ways and one validation image."""
    names = [
        folder / "train" / "ant" / "003.jpg",
        folder / "train" / "cow" / "023.jpg",
        folder / "val" / "bee" / "030.jpg",
    ]
    names[0].write_bytes(names[0].read_bytes()[:200])
    names[1].write_bytes(b"<html>404</html>")
    names[2].write_bytes(b"")
    return names


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_an_error_that_names_it(folder: Path, workers: int) -> None:
    names = broken_files(folder)
    data = photos(folder, workers=workers)
    with pytest.raises(
        BrokenImageError, match=f"({names[0]}: .*truncated|{names[1]}: no image format known);"
    ):
        list(train_loader(data))
    with pytest.raises(
        BrokenImageError, match=f"^cannot decode the image {names[2]}: no image format known; .*skip$"
    ):
        list(val_loader(data))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_replaced_in_training_and_counted(folder: Path, workers: int) -> None:
    names = broken_files(folder)
    loader = train_loader(photos(folder, broken_images="skip", augmentation="none", workers=workers))
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4] * 6
    assert sorted(str(name) in "".join(loader.skipped) for name in names) == [False, True, True]
    assert len(loader.skipped) == 2
    # 003 gives way to 004 of its class, 023, the last one, to 000 of the first class
    labels = sorted(label for _, labels in batches for label in labels.tolist())
    assert labels == [0] * 9 + [1] * 8 + [2] * 7


def test_a_replacement_is_the_next_readable_image(folder: Path) -> None:
    for number in (3, 4):
        (folder / "train" / "ant" / f"{number:03d}.jpg").write_bytes(b"no image")
    data = photos(folder, broken_images="skip", augmentation="none")
    order = data.train.epoch_order(0, 0).tolist()
    images = [image for batch, _ in train_loader(data) for image in batch]
    assert (images[order.index(3)] == images[order.index(5)]).all()
    assert (images[order.index(4)] == images[order.index(5)]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_left_out_of_evaluation_and_counted(folder: Path, workers: int) -> None:
    names = broken_files(folder)
    loader = val_loader(photos(folder, broken_images="skip", workers=workers), batch_size=1)
    batches = list(loader)
    assert [labels.tolist() for _, labels in batches] == [[0]] * 5 + [[1]] * 4 + [[2]] * 5
    assert len(loader.skipped) == 1 and str(names[2]) in loader.skipped[0]


def test_the_first_broken_image_stops_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (folder / "train").rglob("*.jpg"):
        file.write_bytes(b"no image")
    data, read = photos(folder), []
    monkeypatch.setattr(
        data.train, "image", lambda index: read.append(index) or type(data.train).image(data.train, index)
    )
    with pytest.raises(BrokenImageError, match="^cannot decode the image"):
        list(train_loader(data))
    assert len(read) <= 4  # the first batch, not the whole data set


def test_a_data_set_of_broken_images_is_an_error(folder: Path) -> None:
    for file in (folder / "train").rglob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 24 training images can be decoded"):
        list(train_loader(photos(folder, broken_images="skip")))


def test_a_file_that_went_away_is_no_broken_image(folder: Path) -> None:
    data = photos(folder, broken_images="skip")
    (folder / "val" / "ant" / "024.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="024.jpg"):
        list(val_loader(data))


@pytest.mark.parametrize(
    ("name", "value"), [("kind", "tfrecord"), ("augmentation", "mixup"), ("broken_images", "ignore")]
)
def test_unknown_words_are_named(folder: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"data.{name} is '{value}', expected one of "):
        photos(folder, **{name: value})


def test_more_images_per_step_than_there_are_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="global_batch_size=25 exceeds the 24 training images"):
        photos(folder).steps_per_epoch(25)

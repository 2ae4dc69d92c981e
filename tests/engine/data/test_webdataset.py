import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from webdataset.writer import TarWriter

from engine.data import BrokenImageError, DataError, ImageData, ImageOptions, build_data
from engine.data.classes import named
from engine.data.picture import size_of, to_pillow, to_tensor
from engine.data.shard_index import write_index
from tests.engine.data.loading import val_loader
from tests.engine.image_files import CLASSES, encoded, write_shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def open_data(root: Path, broken_images: str = "error") -> ImageData:
    options = ImageOptions(
        kind="webdataset", root=str(root), image_size_px=16, broken_images=broken_images, workers=0
    )
    return build_data(options, seed=0)


def write_shard(path: Path, samples: list[dict]) -> None:
    with TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)


def test_samples_are_those_the_webdataset_library_reads(shards: Path) -> None:
    data = open_data(shards)
    assert (data.classes.names, data.num_train, data.num_val) == (CLASSES, 24, 15)
    urls = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("jpg", "cls"))
    assert len(theirs) == 24
    for index, (image, label) in enumerate(theirs):
        assert np.array_equal(np.asarray(to_pillow(data.train.image(index))), np.asarray(image))
        assert data.train.labels[index] == label


def test_extra_members_and_other_extensions_are_understood(shards: Path) -> None:
    mixed = [
        {"__key__": "a", "png": np.zeros((4, 4, 3), np.float32), "cls": 0, "json": {"x": 1}},
        {"__key__": "sub/b", "jpeg": encoded(1), "cls": 1, "txt": "words"},
        {"__key__": "sub/c", "cls": 2, "jpg": encoded(2), "seg.png": np.zeros((4, 4, 3), np.float32)},
    ]
    write_shard(shards / "val-0009.tar", mixed)
    data = open_data(shards)
    assert data.num_val == 18
    assert data.val.labels[-3:].tolist() == [0, 1, 2]
    assert [size_of(data.val.image(index)) for index in (15, 16, 17)] == [(4, 4), (30, 40), (30, 40)]


def test_an_index_on_disk_gives_the_same_samples(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanned = open_data(shards)
    assert f"python -m engine.data {shards}" in capsys.readouterr().out
    command = [sys.executable, "-m", "engine.data", str(shards)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    indexed = open_data(shards)
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in shards.glob("index-*")) == ["index-train.npz", "index-val.npz"]
    assert indexed.train.labels.tolist() == scanned.train.labels.tolist()
    for index in range(24):
        assert torch.equal(to_tensor(indexed.train.image(index)), to_tensor(scanned.train.image(index)))


@pytest.mark.parametrize("cut", ["first header", "last header", "last data", "end of archive"])
def test_a_cut_off_shard_is_an_error(shards: Path, cut: str) -> None:
    path = shards / "train-0001.tar"
    with tarfile.open(path) as tar:
        last, end = tar.getmembers()[-1], tar.offset
    kept = {
        "first header": 300,
        "last header": last.offset + 100,
        "last data": last.offset_data,
        "end of archive": end,
    }
    path.write_bytes(path.read_bytes()[: kept[cut]])
    with pytest.raises(DataError, match="train-0001.tar: (not a whole|the file is cut off)"):
        open_data(shards)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([{"__key__": "x", "jpg": b"1"}], "a sample is a jpg, jpeg or png and a cls .*'x' has no cls"),
        ([{"__key__": "x", "cls": 1}], "'x' has no jpg, jpeg or png"),
        ([{"__key__": "x", "txt": "words"}], "there is no sample"),
        ([{"__key__": "x", "jpg": b"1", "png": b"2", "cls": 1}], "two images for the sample 'x'"),
        ([{"__key__": "x", "jpg": b"1", "cls": b"cat"}], r"x.cls: expected a class number .*b'cat'"),
        ([{"__key__": "x", "jpg": encoded(1), "cls": 3}], "has label 3"),
    ],
)
def test_a_shard_that_does_not_fit_is_named(shards: Path, samples: list[dict], message: str) -> None:
    write_shard(shards / "val-0007.tar", samples)
    with pytest.raises(DataError, match=message):
        open_data(shards)


def test_labels_that_start_at_one_are_an_error(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", classes=False)
    samples = [{"__key__": f"{label}", "jpg": encoded(label), "cls": label} for label in (1, 2, 3)]
    for path in shards.glob("train-*.tar"):
        write_shard(path, samples)
    with pytest.raises(ValueError, match=r"3 different labels, 1 \.\. 3, .*number the classes from 0"):
        open_data(shards)


def test_classes_are_numbers_without_meta_json(tmp_path: Path) -> None:
    assert open_data(write_shards(tmp_path / "shards", classes=False)).classes.plain() == {
        "count": 3,
        "names": None,
        "ids": None,
    }


def test_evaluation_needs_val_alone_and_matches_names(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = named(CLASSES, "best.pt", range(3))
    for path in shards.glob("train-*"):
        path.unlink()
    write_index(shards, "val")
    options = ImageOptions(kind="webdataset", root=str(shards), image_size_px=16, workers=0)
    meta = shards / "meta.json"
    same, moved = [0, 1, 2, 0, 1], [2, 0, 1, 2, 0]
    for names, expected, warning in (
        (CLASSES, same, ""),
        ([*CLASSES, "without an image"], same, ""),
        (["cow", "ant", "bee"], moved, "meta.json: classes with other numbers than in best.pt"),
        (None, same, "val-*.tar has no class names"),
    ):
        meta.write_text(json.dumps({"classes": names})) if names else meta.unlink()
        data = build_data(options, seed=0, trained=trained)
        assert data.val.labels[:5].tolist() == expected
        printed = capsys.readouterr().out
        assert warning in printed and printed.count("WARNING") == bool(warning)
    meta.write_text(json.dumps({"classes": ["ant", "bee", "dog"]}))
    with pytest.raises(DataError, match=r"meta.json: .*best.pt: 1 \('dog'\); missing: 1 \('cow'\)"):
        build_data(options, seed=0, trained=trained)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"classes": 3}', '{"classes": []}', "null"])
def test_a_wrong_meta_json_is_named(shards: Path, text: str) -> None:
    (shards / "meta.json").write_text(text)
    with pytest.raises(DataError, match="meta.json: "):
        open_data(shards)


def test_a_part_of_the_classes_of_meta_json_is_a_remark(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of ImageNet's shards are a first try."""
    names = [f"class {number}" for number in range(1000)]
    (shards / "meta.json").write_text(json.dumps({"classes": names}))
    for split in ("train", "val"):
        write_index(shards, split)
    data = open_data(shards)
    assert data.classes.names == tuple(names)
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 2
    for warning, split in zip(warnings, ("train", "val"), strict=True):
        assert f"{split} has nothing of 997 ('class 3', 'class 4', 'class 5', ...) of the 1000" in warning


def test_classes_in_the_middle_may_be_missing_too(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in shards.glob("*.tar"):
        write_shard(path, [{"__key__": f"{label}", "jpg": encoded(label), "cls": label} for label in (0, 2)])
    assert open_data(shards).classes.names == CLASSES
    assert "1 ('bee')" in capsys.readouterr().out
    (shards / "meta.json").unlink()
    with pytest.raises(DataError, match=r"2 different labels, 0 \.\. 2, .*meta.json.*without a gap"):
        open_data(shards)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_without_a_name_is_an_error_that_names_the_member(shards: Path, split: str) -> None:
    samples = [{"__key__": f"d/s{label}", "jpg": encoded(label), "cls": label} for label in (1, 3, 2)]
    write_shard(shards / f"{split}-0001.tar", samples)
    with pytest.raises(
        DataError, match=rf"{split}-0001.tar: 'd/s3.cls' \(number 1\) has label 3; .* 0 \.\. 2"
    ):
        open_data(shards)


def test_a_label_that_is_no_class_number_is_an_error_at_once(shards: Path) -> None:
    (shards / "meta.json").unlink()
    write_shard(shards / "train-0003.tar", [{"__key__": "x", "jpg": encoded(1), "cls": 3_000_000}])
    with pytest.raises(DataError, match=r"4 different labels, 0 \.\. 3000000"):
        open_data(shards)


def test_missing_shards_are_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no shards .*train-\*\.tar; expected train-\*\.tar and val-\*\.tar"
    ):
        open_data(tmp_path)


@pytest.mark.parametrize("broken_images", ["error", "skip"])
def test_a_broken_image_in_a_shard_is_named(shards: Path, broken_images: str) -> None:
    good = [{"__key__": f"{number}", "jpg": encoded(number), "cls": number} for number in range(3)]
    write_shard(shards / "val-0001.tar", [*good, {"__key__": "bad", "jpg": b"no image", "cls": 1}])
    loader = val_loader(open_data(shards, broken_images))
    if broken_images == "error":
        with pytest.raises(BrokenImageError, match="bad.jpg.*number 3 of .*val-0001.tar"):
            list(loader)
    else:
        assert sum(len(labels) for _, labels in loader) == 11
        assert len(loader.skipped) == 1 and "val-0001.tar" in loader.skipped[0]

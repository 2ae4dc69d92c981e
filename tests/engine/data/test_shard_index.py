"""The index on disk knows its shards, whatever happened to them since, and so does a run that goes on."""

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

from engine.data import DataError, ImageData, ImageOptions, build_data
from engine.data.__main__ import main
from engine.data.picture import size_of, to_tensor
from engine.data.shard_index import load_or_scan, write_index
from tests.engine.image_files import write_shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return shards with an index; the labels of train-0000.tar are 0, 1, 2, 0, 1, 2, 0, 1, 2."""
    root = write_shards(tmp_path / "shards")
    for split in ("train", "val"):
        write_index(root, split)
    return root


def open_data(root: Path) -> ImageData:
    return build_data(ImageOptions(kind="webdataset", root=str(root), image_size_px=16, workers=0), seed=0)


def correct_label(shard: Path, number: int, label: int, *, keep_time: bool = False) -> None:
    """Change a label in place, as an editor of the same number of bytes does."""
    time = shard.stat().st_mtime_ns
    with tarfile.open(shard) as tar:
        offset = [member for member in tar if member.name.endswith(".cls")][number].offset_data
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(str(label).encode())
    # Not by sleeping: two changes in a row may have one time.
    os.utime(shard, ns=(time, time if keep_time else time + 1))


def test_a_corrected_label_in_a_shard_of_the_same_size_counts(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    correct_label(shards / "train-0000.tar", 4, 2)
    capsys.readouterr()
    assert open_data(shards).train.labels[:6].tolist() == [0, 1, 2, 0, 2, 2]
    warning = capsys.readouterr().out
    assert "index-train.npz" in warning and "1 (train-0000.tar)" in warning and "val" not in warning
    assert f"python -m engine.data {shards}" in warning
    write_index(shards, "train")
    assert open_data(shards).train.labels[:6].tolist() == [0, 1, 2, 0, 2, 2]
    assert capsys.readouterr().out == ""


def test_a_corrected_label_behind_the_same_size_and_time_is_an_error_when_it_is_read(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    correct_label(shards / "train-0000.tar", 4, 2, keep_time=True)
    data = open_data(shards)
    assert size_of(data.train.image(3)) == (30, 40)
    with pytest.raises(DataError, match="train-0000.tar: .*number 4 .*python -m engine.data"):
        data.train.image(4)
    write_index(shards, "train")
    assert open_data(shards).train.labels[4] == 2 and size_of(open_data(shards).train.image(4)) == (30, 40)


@pytest.mark.parametrize("change", ["another order", "a renamed sample", "cut off"])
def test_shards_replaced_under_a_run_are_an_error(shards: Path, tmp_path: Path, change: str) -> None:
    data = open_data(shards)
    shard = shards / "train-0001.tar"
    with tarfile.open(shard) as tar, tarfile.open(tmp_path / "new.tar", "w") as new:
        members = tar.getmembers()
        for member in members[2:] + members[:2] if change == "another order" else members:
            content = tar.extractfile(member)
            member.name = member.name.replace("s018", "x018") if change == "a renamed sample" else member.name
            new.addfile(member, content)
    if change == "cut off":
        image = next(member for member in members if member.name.startswith("s018") and "jpg" in member.name)
        os.truncate(tmp_path / "new.tar", image.offset_data + 100)
    os.replace(tmp_path / "new.tar", shard)
    with pytest.raises(DataError, match="train-0001.tar: .*number 9 .*start again"):
        data.train.image(18)
    assert size_of(data.train.image(0)) == (30, 40)  # of another shard


@pytest.mark.parametrize("copy", [shutil.copyfile, shutil.copy2, os.link, os.symlink])
def test_copies_are_known_by_their_times_or_read_anew(
    shards: Path, tmp_path: Path, copy: Callable[[Path, Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = open_data(shards)
    (tmp_path / "copy").mkdir()
    for path in shards.iterdir():
        copy(path, tmp_path / "copy" / path.name)
    if copy is shutil.copyfile:  # whatever the clock says
        os.utime(tmp_path / "copy" / "train-0002.tar", ns=(0, 0))
        for path in shards.glob("*-000[01].tar"):
            os.utime(tmp_path / "copy" / path.name, ns=(0, path.stat().st_mtime_ns))
    capsys.readouterr()
    data = open_data(tmp_path / "copy")
    assert data.train.labels.tolist() == expected.train.labels.tolist()
    assert torch.equal(to_tensor(data.train.image(20)), to_tensor(expected.train.image(20)))
    said = capsys.readouterr().out
    assert "1 (train-0002.tar)" in said if copy is shutil.copyfile else said == ""


@pytest.mark.parametrize("change", ["new", "gone", "renamed"])
def test_other_shards_are_read_anew(shards: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = shards / "train-0002.tar"
    if change == "new":
        shutil.copy2(path, shards / "train-0003.tar")
    elif change == "gone":
        path.unlink()
    else:
        path.rename(shards / "train-0003.tar")
    capsys.readouterr()
    assert len(load_or_scan(shards, "train").labels) == {"new": 29, "gone": 19, "renamed": 24}[change]
    named = {
        "new": "1 (train-0003.tar)",
        "gone": "1 (train-0002.tar)",
        "renamed": "2 (train-0002.tar, train-0003.tar)",
    }
    assert named[change] in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text", None])
def test_an_index_of_no_use_is_named_and_done_without(
    shards: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shards / "index-train.npz"
    if content is None:  # an earlier version's
        with np.load(path) as arrays:
            columns = {name: arrays[name] for name in arrays.files if name != "shard_times"}
        np.savez(path, **columns)
    else:
        path.write_bytes(content)
    capsys.readouterr()
    assert len(load_or_scan(shards, "train").labels) == 24
    assert f"WARNING: {path}: not an index" in capsys.readouterr().out


def test_remarks_stay_with_an_index_and_one_process_tells_them(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards / "train-0000.tar").write_bytes(b"")
    write_index(shards, "train")
    remark = "WARNING: train-*.tar: empty shards: 1 (train-0000.tar)\n"
    assert capsys.readouterr().out == remark
    load_or_scan(shards, "train")
    assert capsys.readouterr().out == remark
    monkeypatch.setenv("RANK", "1")
    load_or_scan(shards, "train")
    assert capsys.readouterr().out == ""


def test_two_processes_may_write_an_index_at_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savez = np.savez

    def savez_while_another_does(file: IO[bytes], **columns: Any) -> None:
        monkeypatch.setattr(np, "savez", savez)
        write_index(shards, "train")
        savez(file, **columns)

    monkeypatch.setattr(np, "savez", savez_while_another_does)
    write_index(shards, "train")
    assert len(load_or_scan(shards, "train").labels) == 24
    assert not list(shards.glob("*.writing"))


def test_a_folder_with_validation_shards_alone_is_indexed(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*shards.glob("train-*"), *shards.glob("index-*")]:
        path.unlink()
    monkeypatch.setattr(sys, "argv", ["engine.data", str(shards)])
    main()
    assert capsys.readouterr().out == f"{shards / 'index-val.npz'}\n"


def test_an_index_that_cannot_be_written_is_one_sentence(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards / "index-train.npz").unlink()
    (shards / "index-train.npz").mkdir()  # root may write to a folder without permission
    monkeypatch.setattr(sys, "argv", ["engine.data", str(shards)])
    with pytest.raises(SystemExit):
        main()
    assert "cannot write" in (error := capsys.readouterr().err) and "index-train.npz" in error
    assert not list(shards.glob("*.writing"))

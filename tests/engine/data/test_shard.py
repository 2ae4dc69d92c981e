"""What is in a tar file, and what of it is no sample: read, counted and named, or refused."""

import gzip
import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from engine.data import DataError
from engine.data.shard_index import ShardIndex, load_or_scan
from tests.engine.image_files import encoded, write_shards

Members = list[tuple[str, bytes]]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def sample(name: str, label: int) -> Members:
    return [(f"{name}.jpg", encoded(label)), (f"{name}.cls", str(label).encode())]


def write_tar(path: Path, members: Members) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def scanned(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[ShardIndex, str]:
    """Return the training samples and the warnings, without the one that there is no index."""
    index = load_or_scan(root, "train")
    lines = capsys.readouterr().out.splitlines()
    return index, "\n".join(line for line in lines if "reading the headers" not in line)


@pytest.mark.parametrize(
    "rest", ["another archive", "its second half", "a line break", "another archive after 1 MB of zeros"]
)
def test_anything_after_the_end_of_an_archive_is_an_error(shards: Path, rest: str) -> None:
    """tar and webdataset stop at the end, and what `cat` joined to it would be missing."""
    first, second = shards / "train-0000.tar", (shards / "train-0001.tar").read_bytes()
    added = {
        "another archive": second,
        "its second half": second[len(second) // 2 :],
        "a line break": b"\n",
        "another archive after 1 MB of zeros": bytes(1 << 20) + second,
    }
    first.write_bytes(first.read_bytes() + added[rest])
    with pytest.raises(DataError, match="train-0000.tar: the archive ends .*tar --concatenate"):
        load_or_scan(shards, "train")


def test_zeros_after_the_end_are_padding(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (shards / "train-0000.tar").open("ab") as file:
        file.write(bytes(3_000_001))
    index, warnings = scanned(shards, capsys)
    assert (len(index.labels), warnings) == (24, "")


def test_archives_that_tar_joined_are_one_shard(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(shards / "train-0000.tar", "a") as tar:
        content = encoded(7)
        for name, data in (("more.jpg", content), ("more.cls", b"2")):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    index, warnings = scanned(shards, capsys)
    assert (len(index.labels), index.labels[9], warnings) == (25, 2, "")


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([*sample("p.2020.1", 0), *sample("p.2020.2", 1), *sample("q", 2)], "p.2020.1.jpg"),
        (sample("dir/img.0001", 1), "dir/img.0001.jpg"),
        ([("a.v2.jpg", encoded(1)), ("a.cls", b"1")], "a.v2.jpg"),
        ([("a.jpg", encoded(1)), ("a.v2.cls", b"1")], "a.v2.cls"),
        ([("a.webp", b"RIFF"), ("a.cls", b"1")], "a.webp"),
        ([*sample("b", 1), ("a.JSON", b"{}"), ("a.jpg", encoded(1))], "'a' has no cls"),
    ],
)
def test_labelled_images_that_are_no_samples_are_an_error(shards: Path, members: Members, named: str) -> None:
    write_tar(shards / "train-0001.tar", members)
    with pytest.raises(DataError, match="train-0001.tar: .* up to its first dot") as caught:
        load_or_scan(shards, "train")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("members", "counted"),
    [
        (
            [("a.seg.png", b"1"), ("b.seg.png", b"2"), ("b.coarse.cls", b"0")],
            "2 ('a.seg.png' in train-0001.tar, ",
        ),
        ([("x.2020.JPG", encoded(1)), ("x.2020.json", b"{}")], "1 ('x.2020.JPG' in train-0001.tar)"),
        ([("a.webp", b"RIFF"), ("v1.5/preview.gif", b"GIF")], "2 ('a.webp' in train-0001.tar, "),
        ([(f"d/._{name}", b"Mac") for name in ("a.jpg", "a.cls", "b.JPG", "b.cls")], "2 ('d/._a.jpg' in "),
        ([("._a.jpg", b"Mac"), (".DS_Store", b""), ("__MACOSX/d/._a.jpg", b"Mac")], "2 ('._a.jpg' in "),
        (sample(".ipynb_checkpoints/a-checkpoint", 0), "1 ('.ipynb_checkpoints/a-checkpoint.jpg' in "),
        (
            [("__thumbs__/a.jpg", encoded(1)), ("@eaDir/a.jpg/SYNO_THUMB.jpg", b"1")],
            "2 ('__thumbs__/a.jpg' in ",
        ),
    ],
)
def test_images_without_a_part_in_a_sample_are_counted_and_named(
    shards: Path, members: Members, counted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(shards / "train-0001.tar", [*sample("a", 0), *members, *sample("b", 1)])
    index, warnings = scanned(shards, capsys)
    assert index.shard_sizes.tolist() == [9, 2, 5]
    assert (
        len(warnings.splitlines()) == 1 and "train-*.tar: images left out" in warnings and counted in warnings
    )


def test_surroundings_of_plain_samples_are_no_remark(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [("a.json", b"{}"), ("a.coarse.cls", b"x"), ("README.md", b"words"), ("c.txt", b"c")]
    plain = [*sample("./v1.5/a", 0), ("B.JPG", encoded(1)), ("B.CLS", b" 1\n"), *others]
    write_tar(shards / "train-0001.tar", plain)
    index, warnings = scanned(shards, capsys)
    assert (index.labels[9:11].tolist(), warnings) == ([0, 1], "")


@pytest.mark.parametrize("content", ["nothing", "an end", "zeros", "a folder", "hidden files"])
def test_an_empty_shard_is_a_remark(shards: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train-0000.tar", "train-0003.tar"):  # before and behind the others
        path = shards / name
        write_tar(path, [(".DS_Store", b"Mac")] if content == "hidden files" else [])
        if content == "a folder":
            with tarfile.open(path, "w") as tar:
                header = tarfile.TarInfo("images.jpg")
                header.type = tarfile.DIRTYPE
                tar.addfile(header)
        elif content in ("nothing", "zeros"):
            path.write_bytes(bytes(1000 * (content == "zeros")))
    index, warnings = scanned(shards, capsys)
    assert index.shard_sizes.tolist() == [0, 10, 5, 0] and len(index.labels) == 15
    assert warnings == "WARNING: train-*.tar: empty shards: 2 (train-0000.tar, train-0003.tar)"
    for path in shards.glob("train-*.tar"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="each of the 4 shards train-\\*.tar is empty"):
        load_or_scan(shards, "train")


@pytest.mark.parametrize("kind", ["link", "hard link", "sparse"])
def test_members_without_bytes_of_their_own_are_an_error(shards: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(1))
    with tarfile.open(shards / "train-0001.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(tmp_path / "a.jpg", "a.jpg")
        header = tarfile.TarInfo("b.jpg")
        header.type = {
            "link": tarfile.SYMTYPE,
            "hard link": tarfile.LNKTYPE,
            "sparse": tarfile.GNUTYPE_SPARSE,
        }[kind]
        header.linkname = "a.jpg"
        tar.addfile(header)
    with pytest.raises(DataError, match="train-0001.tar: 'b.jpg' is a link or a sparse file.*--dereference"):
        load_or_scan(shards, "train")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*sample("a", 0), ("a.cls", b"1")], "two labels for the sample 'a'"),  # as tar --append leaves it
        ([*sample("a", 0), ("a.JPEG", encoded(1))], "two images for the sample 'a'"),
        *(
            (
                [("a.jpg", encoded(1)), ("a.cls", text)],
                f"a.cls: expected a class number .*{re.escape(repr(text))}",
            )
            for text in (b"", b"-1", b"1.0", b"1 2", b"n01440764", b"9" * 20)
        ),
    ],
)
def test_labels_in_doubt_are_an_error(shards: Path, members: Members, message: str) -> None:
    write_tar(shards / "train-0001.tar", members)
    with pytest.raises(DataError, match=f"train-0001.tar: {message}"):
        load_or_scan(shards, "train")


def test_shards_that_are_compressed_or_not_whole_are_named(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = shards / "train-0002.tar"
    (shards / "train-0002.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert scanned(shards, capsys)[1] == ""
    plain.unlink()
    (shards / "train-0003.tar.part").write_bytes(b"a download that has not ended")
    index, warnings = scanned(shards, capsys)
    assert len(index.labels) == 19
    assert "left out 2 (train-0002.tar.gz, train-0003.tar.part)" in warnings
    (shards / "train-0002.tar.gz").rename(plain)
    with pytest.raises(DataError, match="train-0002.tar: not a whole uncompressed tar file"):
        load_or_scan(shards, "train")


@pytest.mark.parametrize("kind", ["dangling link", "folder"])
def test_a_shard_that_cannot_be_read_is_named(shards: Path, kind: str) -> None:
    path = shards / "train-0009.tar"
    os.symlink(shards / "gone", path) if kind == "dangling link" else path.mkdir()
    with pytest.raises(DataError, match="train-0009.tar: "):
        load_or_scan(shards, "train")

"""Labels mean the same classes in training and evaluation, or somebody is told."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.data import DataError
from engine.data.classes import Classes, classes_of_checkpoint, named, numbered
from engine.training.checkpoint import read_checkpoint, write_checkpoint

ANIMALS = named(["ant", "bee", "cow"], "best.pt")
PAIRS = named(["crane", "crane", "bee"], "best.pt", [134, 517, 600])  # as ImageNet's bird and machine


def labels(known: Classes, other: Classes, used: Sequence[int] | None = None) -> list[int]:
    everything = range(other.count) if used is None else used
    return known.labels_of(other, np.array(everything, dtype=np.int64)).tolist()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (["ant", "bee", "cow"], [0, 1, 2]),
        (["cow", "ant", "bee"], [2, 0, 1]),
        (["bee"], [1]),
        (["cow", "ant"], [2, 0]),
    ],
)
def test_labels_are_matched_by_name(
    other: list[str], expected: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert labels(ANIMALS, named(other, "val")) == expected
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["ant", "bee", "zebra"], r"val: .* the 3 of best.pt: 1 \('zebra'\); missing: 1 \('cow'\)"),
        (["ant", "bee", "Cow"], r"1 \('Cow'\); missing: 1 \('cow'\).*; did you mean 'cow'"),
        (["cat", "dog", "eel"], r"3 \('cat', 'dog', 'eel'\); missing: 3 \('ant', 'bee', 'cow'\)"),
        ([f"n{number:04d}" for number in range(1000)], r"1000 \('n0000', 'n0001', 'n0002', ...\)"),
    ],
)
def test_an_unknown_class_is_named(other: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels(ANIMALS, named(other, "val"))


def test_an_unknown_class_that_nothing_is_of_does_no_harm() -> None:
    assert labels(ANIMALS, named(["cow", "none", "ant"], "val"), used=[2, 0]) == [2, -1, 0]


def test_unicode_forms_of_a_name_are_one() -> None:
    known = named(["caf\u00e9", "th\u00e9"], "best.pt")
    other = named([unicodedata.normalize("NFD", name) for name in ("th\u00e9", "caf\u00e9")], "val")
    assert labels(known, other) == [1, 0]


def test_other_ids_of_the_same_names_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """As of COCO files that two programs wrote."""
    known = named(["cup", "tree"], "train.json", [1, 7])
    assert labels(known, named(["cup", "tree"], "val.json", [1, 7])) == [0, 1]
    assert capsys.readouterr().out == ""
    assert labels(known, named(["tree", "cup"], "val.json", [0, 1])) == [1, 0]
    warning = capsys.readouterr().out
    assert "val.json: classes with other numbers than in train.json" in warning
    assert "1 ('tree' is 0, there 7)" in warning


def test_classes_of_one_name_are_told_apart_by_number_or_refused() -> None:
    assert labels(PAIRS, named(["crane", "bee", "crane"], "val", [517, 600, 134])) == [1, 2, 0]
    assert labels(PAIRS, named(["crane"], "val", [517])) == [1]
    for names, ids in ((["crane"], [3]), (["crane", "crane"], [134, 3]), (["crane"], None)):
        with pytest.raises(DataError, match="'crane' may be any of several .* best.pt; give each"):
            labels(PAIRS, named(names, "val", ids))


def test_without_names_numbers_count_and_have_to_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert labels(numbered(3, "best.pt"), numbered(2, "val")) == [0, 1]
    assert capsys.readouterr().out == ""
    old = numbered(3, "old.pt")
    for known, other, nameless in ((ANIMALS, numbered(2, "val"), "val"), (old, ANIMALS, "old.pt")):
        assert labels(known, other) == list(range(other.count))
        assert f"{nameless} has no class names" in capsys.readouterr().out
    for known, other, message in (
        (ANIMALS, numbered(4, "val"), "val has label 3, but best.pt has 3 classes"),
        (numbered(2, "best.pt"), numbered(3, "val"), "val has label 2, but best.pt has 2 classes"),
        # Which of the four is missing?
        (numbered(4, "best.pt"), named("abc", "val"), "val has 3 classes, but best.pt has 4 without names"),
    ):
        with pytest.raises(DataError, match=message):
            labels(known, other)


@pytest.mark.parametrize(
    "classes",
    [
        PAIRS,
        numbered(7, ""),
        named(["not \udcff UTF-8"], ""),
        named([f"class \u00e9 {number}" for number in range(21841)], ""),
    ],
)
def test_a_checkpoint_keeps_classes(classes: Classes, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "x.pt", {"classes": classes.plain()})
    assert classes_of_checkpoint(read_checkpoint(tmp_path / "x.pt"), "x.pt") == classes
    assert (tmp_path / "x.pt").stat().st_size < 1_000_000


@pytest.mark.parametrize("key", ["num_classes", "num_categories"])
def test_an_older_checkpoint_has_the_number_alone(key: str) -> None:
    assert classes_of_checkpoint({"data": {"num_train": 9, key: 3}}, "old.pt") == numbered(3, "old.pt")

"""What labels stand for: the classes of a data set or of a trained network, and how two of these fit."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.data.source import DataError, Labels
from engine.records.console import listed, warn_on_main
from pwlu.suggestion import did_you_mean


@dataclass(frozen=True)
class Classes:
    """Classes in the order of their labels.

    `names` is None where only the number of classes is known. `ids` are the files' numbers of the classes
    (COCO's categories, `cls` in shards), None where they have names alone. `source` is where they come from.
    """

    count: int
    names: tuple[str, ...] | None
    ids: tuple[int, ...] | None
    source: str = field(compare=False)

    def plain(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of them."""
        names, ids = (None if part is None else list(part) for part in (self.names, self.ids))
        return {"count": self.count, "names": names, "ids": ids}

    def labels_of(self, other: "Classes", used: Labels) -> Labels:
        """Return the label here of each class of `other`, by its name; -1 for one that is not known here.

        `used` are labels of `other`. Raises DataError if one of them is of a class that is not known here.
        Warns of classes with other ids, and where names are missing.
        """
        if self.names is None or other.names is None:
            return _by_number(self, other)
        found = _by_name(self, other)
        unknown = [other.names[label] for label in np.flatnonzero(np.bincount(used)) if found[label] < 0]
        if unknown:
            raise DataError(_unknown(self, other, unknown))
        _warn_of_other_ids(self, other, found)
        return found

    def warn_of_missing(self, present: Labels, source: str) -> None:
        """Name the classes that `source` lacks, which has those of the labels `present`."""
        missing = np.flatnonzero(np.bincount(present, minlength=self.count) == 0).tolist()
        if missing:
            names = [str(label) if self.names is None else repr(self.names[label]) for label in missing]
            warn_on_main(
                f"{source} has nothing of {listed(names)} of the {self.count} classes of {self.source}"
            )


def named(names: Sequence[str], source: str, ids: Sequence[int] | None = None) -> Classes:
    """Return classes of these names, in Unicode's form NFC: file systems differ in theirs."""
    composed = tuple(unicodedata.normalize("NFC", name) for name in names)
    return Classes(len(names), composed, None if ids is None else tuple(ids), source)


def numbered(count: int, source: str) -> Classes:
    """Return classes without names."""
    return Classes(count, None, None, source)


def classes_of_checkpoint(content: Mapping[str, Any], source: str) -> Classes:
    """Return the classes of the network in a checkpoint; those of an older one have no names."""
    saved = content.get("classes")
    if saved is None:
        data = content["data"]
        return numbered(data.get("num_classes", data.get("num_categories")), source)
    if saved["names"] is None:
        return numbered(saved["count"], source)
    return named(saved["names"], source, saved["ids"])


def _by_number(known: Classes, other: Classes) -> Labels:
    if other.names is None and other.count > known.count:
        raise DataError(
            f"{other.source} has label {other.count - 1}, but {known.source} has {known.count} classes; take "
            "away what is of other classes"
        )
    # One name less shifts the labels behind it.
    if other.names is not None and other.count != known.count:
        raise DataError(
            f"{other.source} has {other.count} classes, but {known.source} has {known.count} without names "
            "to match them by; give it the same classes (those without images too)"
        )
    if known.names != other.names:
        nameless = known if known.names is None else other
        warn_on_main(
            f"{nameless.source} has no class names: labels of {other.source} are taken for those of "
            f"{known.source} by their number"
        )
    return np.arange(other.count)


def _by_name(known: Classes, other: Classes) -> Labels:
    assert known.names is not None and other.names is not None
    times, own_times = Counter(known.names), Counter(other.names)
    labels = {name: label for label, name in enumerate(known.names) if times[name] == 1}
    # Of several classes of one name, the number tells which is which.
    pairs = {pair: label for label, pair in enumerate(zip(known.names, known.ids or (), strict=False))}
    found = [labels.get(name, -1) if own_times[name] == 1 else -1 for name in other.names]
    for place, pair in enumerate(zip(other.names, other.ids or (), strict=False)):
        found[place] = pairs.get(pair, found[place])
    return np.array(found, dtype=np.int64)


def _warn_of_other_ids(known: Classes, other: Classes, found: Labels) -> None:
    if known.ids is None or other.ids is None or other.names is None:
        return
    moved = [
        f"{name!r} is {identity}, there {known.ids[label]}"
        for name, identity, label in zip(other.names, other.ids, found.tolist(), strict=True)
        if label >= 0 and identity != known.ids[label]
    ]
    if moved:
        warn_on_main(
            f"{other.source}: classes with other numbers than in {known.source}, matched by name: "
            f"{listed(moved)}"
        )


def _unknown(known: Classes, other: Classes, unknown: Sequence[str]) -> str:
    assert known.names is not None and other.names is not None
    twice = sorted(set(unknown) & set(known.names))
    if twice:
        return (
            f"{other.source}: {twice[0]!r} may be any of several classes of this name, here or in "
            f"{known.source}; give each class a name of its own"
        )
    missing = sorted(set(known.names) - set(other.names))
    lacks = f"; missing: {listed([repr(name) for name in missing])}" if missing else ""
    return (
        f"{other.source}: classes that are not among the {known.count} of {known.source}: "
        f"{listed([repr(name) for name in unknown])}{lacks}. Give classes the names that they "
        f"had in training, or take away what is of other classes{did_you_mean(unknown[0], missing)}"
    )

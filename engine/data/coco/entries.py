"""The lists of a COCO annotation file, and errors that name the entry at fault."""

import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.source import DataError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Entries:
    """One of the file's lists; every method raises DataError with the file and the entry's id.

    Checks go over columns, not over entries: train2017 has 860,001 annotations.
    """

    def __init__(self, path: Path, kind: str, entries: list[Any]) -> None:
        """Take one or more objects of a `kind` (image, annotation, category), each with an id of its own."""
        if not entries:
            raise DataError(f"{path}: there is not a single {kind}")
        self._path, self._kind, self.entries = path, kind, entries
        self._require_each(lambda entry: isinstance(entry, dict), "expected an object {...}")
        self.ids = self.integers("id")
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted_ids = self.ids[self._order]
        repeated = np.flatnonzero(self._sorted_ids[1:] == self._sorted_ids[:-1])
        if len(repeated):
            raise self.fault(int(self._order[repeated[0] + 1]), f"another {kind} has the same id")

    def __len__(self) -> int:
        return len(self.entries)

    def fault(self, place: int, sentence: str) -> DataError:
        """Return an error about the entry at `place` in the list."""
        entry = self.entries[place]
        has_id = isinstance(entry, dict) and "id" in entry
        name = f"{self._kind} {entry['id']}" if has_id else f"{self._kind} number {place + 1} of the list"
        return DataError(f"{self._path}: {name}: {sentence}; correct or remove it")

    def integers(self, key: str, default: int | None = None) -> Integers:
        """Return a column of whole numbers, int64 of shape (len,)."""
        try:
            if default is None:
                values = [entry[key] for entry in self.entries]
            else:
                values = [entry.get(key, default) for entry in self.entries]
            return np.array(array("q", values), dtype=np.int64)
        except (KeyError, TypeError, OverflowError):
            self._require_each(_is_integer, f"{key}: expected a whole number", key, default)
            raise

    def texts(self, key: str) -> list[str]:
        """Return a column of texts, none of them empty."""
        self._require_each(lambda text: isinstance(text, str) and text != "", f"{key}: expected a text", key)
        return [entry[key] for entry in self.entries]

    def require_numbers(self, key: str) -> None:
        """Raise DataError unless every entry has a finite number under `key`."""
        self._require_each(_is_number, f"{key}: expected a finite number", key)

    def rows(self, key: str, length: int) -> Floats:
        """Return a column of lists of finite numbers, float64 of shape (len, length)."""
        values, expected = array("d"), f"{key}: expected {length} finite numbers"
        for place, entry in enumerate(self.entries):
            row = entry.get(key)
            try:
                values.fromlist(row)
            except (TypeError, OverflowError):
                raise self.fault(place, f"{expected}, got {_short(row)}") from None
            if len(row) != length:
                raise self.fault(place, f"{expected}, got {_short(row)}")
        rows = np.array(values, dtype=np.float64).reshape(-1, length)
        self.require(np.all(np.isfinite(rows), axis=1), expected, key)
        return rows

    def require(self, good: npt.NDArray[np.bool_], sentence: str, key: str) -> None:
        """Raise DataError for the first entry that is not `good`, a bool of shape (len,)."""
        bad = np.flatnonzero(~good)
        if len(bad):
            place = int(bad[0])
            raise self.fault(place, f"{sentence}, got {_short(self.entries[place].get(key))}")

    def places_of(self, ids: Integers, key: str, askers: "Entries") -> Integers:
        """Return where in this list the `ids` are that `askers` name under `key`."""
        nearest = np.searchsorted(self._sorted_ids, ids).clip(max=len(self) - 1)
        known = self._sorted_ids[nearest] == ids
        askers.require(known, f"{key}: there is no {self._kind} with this id", key)
        return self._order[nearest]

    def _require_each(
        self, good: Callable[[Any], object], sentence: str, key: str = "", default: object = None
    ) -> None:
        for place, entry in enumerate(self.entries):
            value = entry.get(key, default) if key else entry
            if not good(value):
                raise self.fault(place, f"{sentence}, got {_short(value)}")


def _short(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60}"


def _is_number(value: object) -> bool:
    return _is_integer(value) or isinstance(value, float) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63

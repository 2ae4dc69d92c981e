"""Reading the entries of a COCO annotation file, with errors that name the entry at fault."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.data.source import DataError

Entry = dict[str, Any]


def read_entries(path: Path, kind: str, entries: list[Any], read: Callable[[Entry], object]) -> None:
    """Call `read` with each of a list's entries of a `kind` (image, annotation, category).

    Raises DataError, with the file and the entry's id, for an empty list, for what is no object, and where
    `read` raises ValueError.
    """
    if not entries:
        raise DataError(f"{path}: there is not a single {kind}")
    for place, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"expected an object {{...}}, got {_short(entry)}")
            read(entry)
        except ValueError as error:
            has_id = isinstance(entry, dict) and "id" in entry
            name = f"{kind} {entry['id']}" if has_id else f"{kind} number {place + 1} of the list"
            raise DataError(f"{path}: {name}: {error}; correct or remove it") from None


def integer(entry: Entry, key: str) -> int:
    """Return a whole number that fits into 64 bits; 7.0 is one, as some programs write all numbers so."""
    value = entry.get(key)
    if not isinstance(value, int) and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{key}: expected a whole number, got {_short(value)}")
    return value


def new_id(entry: Entry, ids: dict[int, None]) -> None:
    """Add the entry's id to those before it."""
    identity = integer(entry, "id")
    if identity in ids:
        raise ValueError("another one has the same id")
    ids[identity] = None


def same_ids(entries: list[Entry]) -> list[bool]:
    """Return which entries have the id of an earlier one. Entries without an id have none in common."""
    ids: set[object] = set()
    same = []
    for entry in entries:
        identity = entry.get("id")
        comparable = isinstance(identity, int | float | str)
        same.append(comparable and identity in ids)
        if comparable:
            ids.add(identity)
    return same


def known(entry: Entry, key: str, places: dict[int, int], kind: str) -> int:
    """Return the place of the `kind` whose id the entry names."""
    identity = integer(entry, key)
    if identity not in places:
        raise ValueError(f"{key}: there is no {kind} with this id, got {identity}")
    return places[identity]


def text(entry: Entry, key: str) -> str:
    """Return a text that is not empty."""
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected a text, got {_short(value)}")
    return value


def has_area(annotation: Entry) -> bool:
    """Return whether there is an area of more than nothing; some programs leave it out, or write 0."""
    value: Any = annotation.get("area")
    if value is not None and not _is_finite(value):
        raise ValueError(f"area: expected a finite number, got {_short(value)}")
    return value is not None and value > 0


def box(entry: Entry) -> tuple[float, float, float, float]:
    """Return the corners x1, y1, x2, y2 of COCO's bbox x, y, width, height."""
    value = entry.get("bbox")
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_finite, value)):
        raise ValueError(f"bbox: expected 4 finite numbers, got {_short(value)}")
    x, y, width, height = map(float, value)
    if width < 0 or height < 0:  # train2017 has two boxes without width
        raise ValueError(f"bbox: expected x, y and a width and height of 0 or more, got {_short(value)}")
    return x, y, x + width, y + height


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 2.0**1023


def _short(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60}"

"""Where the pictures are that an annotation file names."""

import os
import unicodedata
from pathlib import Path

from engine.data.coco.annotations import CocoAnnotations
from engine.data.source import DataError
from engine.records.console import warn_on_main


def find_pictures(folder: Path, annotations: CocoAnnotations) -> list[str]:
    """Return the path from `folder` of each image's file.

    Names with backslashes, or in another Unicode form than the file's, are found too, with a warning; so is a
    file that several images share. Raises DataError for one that is not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {annotations.path} is about its images")
    names = [annotations.file_name(index) for index in range(len(annotations))]
    listed = _Listed(folder)
    found = [name if listed.has(name) else listed.find(name) for name in names]
    missing = [place for place, name in enumerate(found) if name is None]
    if missing:
        image_id, name = annotations.image_ids[missing[0]], names[missing[0]]
        raise DataError(
            f"{annotations.path}: image {image_id}: there is no file {folder / name}"
            f"{f' (nor {len(missing) - 1} others)' if missing[1:] else ''}; {listed.remedy(name)}"
        )
    pictures = [name for name in found if name is not None]
    renamed = [place for place, name in enumerate(names) if name != pictures[place]]
    if renamed:
        warn_on_main(
            f"{annotations.path}: {len(renamed)} of {len(names)} file_names have backslashes or another "
            f"Unicode form than the file: {names[renamed[0]]!a} is taken for {pictures[renamed[0]]!a}"
        )
    _tell_shared(pictures, annotations)
    return pictures


class _Listed:
    """The names in a folder and the folders in it, each listed once, when it is asked for."""

    # Asking for 118,287 files one by one takes minutes on NFS.

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, set[str]] = {}
        self._by_form: dict[str, dict[str, str]] = {}

    def has(self, name: str) -> bool:
        parent, last = os.path.split(name)
        return last in self._in(parent)

    def find(self, name: str) -> str | None:
        """Return the path that is there of a name that is not as it is written."""
        found = ""
        for part in os.path.normpath(name.replace("\\", "/")).split("/"):
            if found not in self._by_form:
                self._by_form[found] = {_form(there): there for there in self._in(found)}
            there = self._by_form[found].get(_form(part))
            if there is None:
                return None
            found = os.path.join(found, there)
        return found

    def remedy(self, name: str) -> str:
        """Return what to do about a missing file, by what else is in the folder."""
        stem = _stem(name)
        near = next((there for there in sorted(self._in("")) if _stem(there) == stem), None)
        if near is None:
            return "copy or download the images again"
        return (
            f"but there is {self._folder / near}: a file_name is the path from {self._folder}, with its "
            "extension; correct it in the annotation file"
        )

    def _in(self, parent: str) -> set[str]:
        if parent not in self._names:
            folder = self._folder / parent
            self._names[parent] = set(os.listdir(folder)) if folder.is_dir() else set()
        return self._names[parent]


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    return _form(os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0]).casefold()


def _tell_shared(pictures: list[str], annotations: CocoAnnotations) -> None:
    first: dict[str, int] = {}
    shared = [place for place, name in enumerate(pictures) if first.setdefault(name, place) != place]
    if shared:
        place = shared[0]
        ids = annotations.image_ids[[first[pictures[place]], place]].tolist()
        warn_on_main(
            f"{annotations.path}: {len(shared)} images have the file of another one, so that objects of one "
            f"are background in the other: images {ids[0]} and {ids[1]} are both {pictures[place]}"
        )

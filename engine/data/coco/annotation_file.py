"""Reading `annotations/instances_<split>.json`."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.data.source import DataError

_RENEW = "copy or download the file again"


def read_annotation_file(path: Path) -> dict[str, Any]:
    """Return the content of `annotations/instances_<split>.json` as loaded.

    Raises DataError where it is missing, cut off, or lacks one of the lists images, annotations, categories.
    """
    try:
        text = path.read_text(encoding="utf-8")
        with _collector_paused():
            content = json.loads(text)
    except FileNotFoundError:
        layout = "ROOT/annotations/instances_<split>.json and ROOT/<split>/*.jpg"
        raise DataError(f"{path}: there is no such file; expected COCO's layout {layout}") from None
    except (ValueError, RecursionError) as error:  # of JSON as of UTF-8
        raise DataError(f"{path}: not a whole JSON file: {error}; {_RENEW}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations, categories; {_RENEW}")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise DataError(
                f"{path}: there is no list {name!r}; an instances file has images, annotations, categories"
            )
    return content


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python from looking for cycles, of which JSON has none: 9 of 22 s at train2017's size."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""Records of benchmarks, as they lie in results/: JSON files that say what wrote them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_record(path: Path, benchmark: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return what the program tools.<benchmark> wrote; `keys` must be in it.

    Raises:
        ValueError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; make it by python -m tools.{benchmark} --output {path}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("benchmark") != benchmark:
        raise ValueError(f"{path}: not a record of tools.{benchmark}, whose key benchmark says {benchmark}")
    absent = [key for key in keys if key not in record]
    if absent:
        raise ValueError(f"{path}: a record of tools.{benchmark} without {absent[0]!r}; measure again")
    return record

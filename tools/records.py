"""What the tools' programs share: command lines, and records in results/, alone or beside a picture."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from engine.files import FolderError, require_writable, write_text_atomically
from engine.processes.program import to_path
from engine.records.console import say
from engine.records.curves import render
from engine.records.record import write_picture
from engine.runs.manifest import describe_code


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m tools.<name>`; `description` is its module's docstring, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive(text: str) -> int:
    """Return the positive integer that `text` is, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return int(text)


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Add `--output`, where a record goes."""
    parser.add_argument(
        "--output",
        required=True,
        type=_record_path,
        metavar="FILE.json",
        help="the record; what is made of it lies beside it",
    )


def _record_path(text: str) -> Path:
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .json, got {text}")
    path = to_path(text)
    to_output_folder(str(path.parent))
    return path


def to_output_folder(text: str) -> Path:
    """Return the folder for results that a word of a command line names, for argparse; it may be missing."""
    folder = to_path(text)
    try:
        require_writable(folder)
    except FolderError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return folder


def counted(number: int, what: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number} {what}{'s' * (number != 1)}"


def read_json(path: Path, command: str) -> Any:
    """Return what a file holds. Raises ValueError: it is not JSON, or missing, and made by `command`."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; make it by `{command}`")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def read_record(path: Path, benchmark: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return what the program tools.<benchmark> wrote; `keys` must be in it.

    Raises:
        ValueError: there is no such file, or it is something else.
    """
    record = read_json(path, f"python -m tools.{benchmark} --output {path}")
    if not isinstance(record, dict) or record.get("benchmark") != benchmark:
        raise ValueError(f"{path}: not a record of tools.{benchmark}, whose key benchmark says {benchmark}")
    absent = [key for key in keys if key not in record]
    if absent:
        raise ValueError(f"{path}: a record of tools.{benchmark} without {absent[0]!r}; measure again")
    return record


def write_figure(picture: Path, figure: Figure, record: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a picture and, beside it as .json, what it shows and the code that drew it; say where.

    `indent` as in json.dumps, for a record that people read too.
    """
    picture.parent.mkdir(parents=True, exist_ok=True)
    beside = picture.with_suffix(".json")
    write_picture(picture, render(figure))
    text = json.dumps({"code": describe_code(), **record}, indent=indent)
    write_text_atomically(beside, text + "\n")
    say(f"picture: {picture}\nrecord: {beside}")

"""The command lines of the tools."""

import argparse
from pathlib import Path


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m tools.<name>`; `description` is its module's docstring, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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
    return Path(text)

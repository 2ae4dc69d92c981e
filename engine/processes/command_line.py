"""What both training programs take on the command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arguments:
    """`--config FILE [--eval CHECKPOINT] [key=value ...]`."""

    config: Path
    checkpoint: Path | None
    overrides: list[str]


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> Arguments:
    """Read the command line (the process's own if `argv` is None); leave with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument(
        "--eval", type=Path, metavar="CHECKPOINT", help="evaluate these weights instead of training"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the file's")
    parsed = parser.parse_intermixed_args(argv)
    return Arguments(parsed.config, parsed.eval, parsed.overrides)

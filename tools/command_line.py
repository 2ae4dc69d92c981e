"""The command lines of the tools."""

import argparse


def tool_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for `python -m tools.<name>`; `description` is its module's docstring, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

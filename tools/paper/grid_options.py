"""Which table or study, on the command lines of the tools."""

import argparse

from tools.paper.grid import STUDIES, TABLES


def add_grid_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add `--table N` and `--study NAME`, of which one may be given, or must; both are read as `table`."""
    which = parser.add_mutually_exclusive_group(required=required)
    else_all = "" if required else " (all that have runs)"
    tables, studies = ", ".join(map(str, TABLES)), ", ".join(STUDIES)
    which.add_argument("--table", type=int, metavar="N", help=f"of the paper: one of {tables}{else_all}")
    which.add_argument("--study", dest="table", metavar="NAME", help=f"of ours: one of {studies}{else_all}")

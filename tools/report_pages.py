"""What results/README.md has beside the tables of runs: the pages of Table 4 and of GPUs, and the figures."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pwlu_ext.benchmarks.page import PAGES
from tools.latency.figure import read_latency
from tools.latency.table import latency_table, table_4
from tools.paper.numbers import PAPER

_PICTURE = re.compile(r"(?P<scale>[a-z]+)_(?P<kind>table|figure)(?P<number>\d)(?P<rest>.*)")
_INTRODUCTION = (
    "The .json beside a picture has its numbers and the runs they are of. Scale demo is that of `make demo`: "
    "ResNet-18, 8 epochs on handwritten digits (and, in Figure 6, the same with fixed boundaries: the README "
    "has the commands)."
)
_SHOWS = {
    "Figure 1": ", improvements over ReLU by activation function",
    "Figure 5": ", improvements over ReLU by network",
    "Figure 6": ", how boundaries cover their inputs (Eq. 7)",
    "Figure 7": ", learned functions",
}


def latency_pages(results: Path) -> dict[Path, str]:
    """Return the page of each record in results/latency, by the path where it belongs.

    Raises:
        ValueError: a file that is no record of tools.latency.
    """
    paper = table_4(PAPER)
    records = sorted((results / "latency").glob("*.json"))
    return {path.with_suffix(".md"): latency_table(read_latency(path), paper) for path in records}


def benchmark_pages(results: Path) -> dict[Path, str]:
    """Return the page of each record in results/benchmarks that has one, by the path where it belongs."""
    records = {path: json.loads(path.read_text()) for path in sorted((results / "benchmarks").glob("*.json"))}
    return {
        path.with_suffix(".md"): PAGES[record["benchmark"]](record)
        for path, record in records.items()
        if record["benchmark"] in PAGES
    }


def latency_lines(pages: dict[Path, str]) -> list[str]:
    """Return a section that links to pages of Table 4, none if there are none."""
    if not pages:
        return []
    lines = ["## Table 4, the time of inference", ""]
    for path, text in pages.items():
        lines += [f"[{_heading(text)}](latency/{path.name})", ""]
        if path.with_suffix(".png").exists():
            lines += [f"![latency, {path.stem}](latency/{path.stem}.png)", ""]
    return lines


def figure_lines(results: Path) -> list[str]:
    """Return a section that shows the pictures in results/figures, but studies'; none if there are none."""
    pictures = sorted(path for path in (results / "figures").rglob("*.png") if "_study_" not in path.name)
    if not pictures:
        return []
    lines = ["## Figures", "", _INTRODUCTION, ""]
    for picture in pictures:
        place = picture.relative_to(results)
        lines += [f"### {_title(place.parts[1:])}", "", f"![{place.stem}]({place.as_posix()})", ""]
    return lines


def _heading(page: str) -> str:
    return next(line.removeprefix("# ") for line in page.splitlines() if line.startswith("# "))


def _title(parts: Sequence[str]) -> str:
    """Return what a picture is from the words of its path: `smoke_figure7/r18_pwlu_seed0.png`."""
    name = " ".join(parts).removesuffix(".png")
    found = _PICTURE.fullmatch(name)
    if not found:
        return name
    what = f"{found['kind'].capitalize()} {found['number']}"
    rest = f": {found['rest'].strip(' _')}" if found["rest"] else ""
    return f"{what}, scale {found['scale']}{_SHOWS.get(what, '')}{rest}"

"""results/README.md: the paper's tables with our numbers beside its own, and the figures."""

import re
from pathlib import Path

from pwlu_ext.benchmarks.page import operator_page
from tools.latency.table import latency_table, read_latency, table_4
from tools.paper.grid import SCALES, SMOKE, load_table
from tools.paper.numbers import PAPER
from tools.records import read_json
from tools.tables.markdown import read_table, table_lines
from tools.tables.measurements import csv_path
from tools.tables.short import latency_ratios

_HEAD = """# Results beside the paper's

Made by `python -m tools.report` from the records in this folder; do not edit. The paper's numbers are those
of [paper.csv](paper.csv); ours are taken from runs by `python -m tools.collect` into [tables](tables), with
each run's commit and the hash of its configuration.

Numbers are percent, the mean ± the standard deviation over n runs that differ in the seed, of the evaluation
after the last step. A run whose loss became NaN or infinite has diverged, and is in no mean. An empty *ours*
has not been run. What a scale sets: [configs/sweeps](../configs/sweeps); what the paper leaves open:
[docs/choices.md](../docs/choices.md).
"""
_TABLE_TITLES = {
    2: "activation functions in five networks on ImageNet",
    3: "activation functions in detectors on COCO",
    4: "time of inference",
    5: "how the boundaries start, ResNet-18",
    6: "how the boundaries start, MobileNet-V3",
    7: "the number of intervals",
}
_FIGURES = {
    "1": "improvements over ReLU by activation function",
    "5": "improvements over ReLU by network",
    "6": "how boundaries cover their inputs (Eq. 7)",
    "7": "learned functions",
}
_PICTURE = re.compile(r"(?P<scale>[a-z]+)_figure(?P<number>\d)(?P<rest>.*)")


def results_page(results: Path, studies: dict[Path, str]) -> str:
    """Return results/README.md, which links to the pages `studies`."""
    lines = [_HEAD]
    for table, title in _TABLE_TITLES.items():
        lines += [f"## Table {table}: {title}", ""]
        lines += _table_4(results) if table == 4 else _table(table, results)
    for path, text in studies.items():
        lines += ["## Our studies", "", f"[{_heading(text)}]({path.name})", ""]
    return "\n".join(lines + _figures(results))


def latency_pages(results: Path) -> dict[Path, str]:
    """Return the page of each record in results/latency, by the path where it belongs."""
    paper = table_4(PAPER)
    records = sorted((results / "latency").glob("*.json"))
    return {path.with_suffix(".md"): latency_table(read_latency(path), paper) for path in records}


def operator_pages(results: Path) -> dict[Path, str]:
    """Return the page that each record of the operator in results/benchmarks makes, by where it belongs."""
    records = sorted((results / "benchmarks").glob("operator_*.json"))
    command = "python -m pwlu_ext.benchmarks.operator_cpu"
    return {path.with_suffix(".md"): operator_page(read_json(path, command)) for path in records}


def _table(table: int, results: Path) -> list[str]:
    """Return a table at scale full, run or not, then at the other scales that were collected."""
    lines = [*table_lines(read_table(table, "full", results)), ""]
    for scale in SCALES:
        if scale not in ("full", SMOKE) and csv_path(results, scale, load_table(table)).exists():
            lines += [f"### Scale {scale}: {SCALES[scale]}", ""]
            lines += [*table_lines(read_table(table, scale, results)), ""]
    return lines


def _table_4(results: Path) -> list[str]:
    """Return every measurement of inference times, relative to ReLU, with a link to its times."""
    pages = {
        path: text
        for path, text in latency_pages(results).items()
        if read_latency(path.with_suffix(".json"))["inference"]  # others are of the training step alone
    }
    lines = [] if pages else ["Not measured yet: `make table-4`.", ""]
    for path, text in pages.items():
        place = path.relative_to(results).with_suffix("")
        lines += [f"### [{_heading(text)}]({place}.md)", "", *latency_ratios(path.with_suffix(".json")), ""]
        if path.with_suffix(".png").exists():
            lines += [f"![{place}]({place}.png)", ""]
    return lines


def _figures(results: Path) -> list[str]:
    """Return a section that shows the pictures in results/figures, but studies'; none if there are none."""
    pictures = sorted(path for path in (results / "figures").rglob("*.png") if "_study_" not in path.name)
    lines = ["## Figures", "", "Scale demo is that of `make demo`.", ""] if pictures else []
    for picture in pictures:
        place, title = picture.relative_to(results), _title(picture.relative_to(results / "figures"))
        lines += [f"### {title}", "", f"![{place.stem}]({place})", ""]
    return lines


def _heading(page: str) -> str:
    return next(line.removeprefix("# ") for line in page.splitlines() if line.startswith("# "))


def _title(place: Path) -> str:
    """Return what a picture is from its path, such as `demo_figure7/r18_pwlu_seed0.png`."""
    name = " ".join(place.with_suffix("").parts)
    found = _PICTURE.fullmatch(name)
    if not found:
        return name
    rest = f": {found['rest'].strip()}" if found["rest"] else ""
    return f"Figure {found['number']}, scale {found['scale']}, {_FIGURES.get(found['number'], '')}{rest}"

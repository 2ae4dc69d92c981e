"""Make results/README.md: the paper's tables beside our numbers, from the CSV files in results/.

Also results/STUDY.md from results/small_study_*.csv, and the pages of results/latency and results/benchmarks;
the pictures in results/figures are shown.

    python -m tools.report
    python -m tools.report --check     # exit status 1 if a file is not what the records give

Each table shows runs of one scale. A cell without a run shows a dash.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.files import write_text_atomically
from pwlu.suggestion import expected_one_of
from tools.collect import RESULTS, csv_path
from tools.command_line import tool_parser
from tools.paper.grid import SCALES, TABLES, load_grid
from tools.report_pages import benchmark_pages, figure_lines, latency_lines, latency_pages
from tools.study.page import link_lines, networks_table, study_page
from tools.tables.markdown import MISSING, read_measurements, table_lines
from tools.tables.short import demo_coco_table, demo_table, latency_cpu_table, operator_cpu_table

# A page shows one of these tables between two lines of its own,
#     <!-- table: demo -->
#     <!-- end -->
# which `python -m tools.report` fills and `--check` compares. A page is README.md or docs/**/*.md.
MARKED_TABLES: dict[str, Callable[[Path], list[str]]] = {
    "demo": demo_table,
    "demo-coco": demo_coco_table,
    "studies": networks_table,
    "operator-cpu": operator_cpu_table,
    "latency-cpu": latency_cpu_table,
}
_MARKED = re.compile(r"^<!-- table: (\S+) -->\n(.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)

_HEAD = """# Results beside the paper's

Made by `python -m tools.report` from the CSV files in this folder, which `python -m tools.collect` takes from
the records of runs; do not edit. The paper's numbers are those of [paper.csv](paper.csv).

All numbers are percent. *ours* is the mean ± the standard deviation over n runs that differ in the seed, of
the evaluation after the last step; *difference* is ours minus the paper's; — is a missing run. A run that
diverged, as its loss became NaN or infinite, is counted as such, not in n, and is in no mean. The last column
has each run's folder, the hash of its configuration, the commit (`+changes`: with files that differed from
it) and the day. What a scale sets: [configs/sweeps](../configs/sweeps); what the paper leaves open:
[docs/choices.md](../docs/choices.md).
"""


def report(results: Path) -> str:
    """Return results/README.md.

    Raises:
        ValueError: a CSV file that does not fit its name or the grid.
    """
    lines, absent = [_HEAD], []
    for scale in SCALES:
        sections: list[str] = []
        for table in TABLES:
            path = csv_path(results, scale, table)
            if path.exists():
                grid = load_grid(table)
                sections += table_lines(grid, scale, read_measurements(path, grid, scale))
            else:
                absent.append(f"- Table {table}, scale {scale}: {MISSING}")
        if sections:
            lines += [f"## Scale {scale}", "", f"**Ours: {SCALES[scale]}.**", "", *sections]
    lines += link_lines(study_page(results))
    lines += latency_lines(latency_pages(results)) + figure_lines(results)
    if absent:
        lines += ["## Not run", "", *absent, ""]
    return "\n".join(lines)


def fill_markers(page: Path, results: Path) -> str:
    """Return a page's text with the tables that its markers name.

    Raises:
        ValueError: an unknown name, a marker without its end, or a record that is missing.
    """
    text = page.read_text("utf-8")
    if text.count("<!-- table:") != len(_MARKED.findall(text)):
        raise ValueError(f"{page}: every line <!-- table: NAME --> needs a line <!-- end --> after it")

    def table(marked: re.Match[str]) -> str:
        name = marked[1]
        if name not in MARKED_TABLES:
            raise ValueError(f"{page}: {expected_one_of('table', name, MARKED_TABLES)}")
        return "\n".join([f"<!-- table: {name} -->", "", *MARKED_TABLES[name](results), "", "<!-- end -->"])

    return _MARKED.sub(table, text)


def marked_pages(root: Path) -> list[Path]:
    """Return README.md and docs/**/*.md, as far as they have markers."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in found if page.is_file() and "<!-- table:" in page.read_text("utf-8")]


def pages(results: Path) -> dict[Path, str]:
    """Return all that is generated, by file. Errors as in the functions that make them."""
    return {
        results / "README.md": report(results),
        **study_page(results),
        **latency_pages(results),
        **benchmark_pages(results),
        **{page: fill_markers(page, results) for page in marked_pages(results.parent)},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file, or check that it is current."""
    parser = tool_parser("report", __doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the CSVs ({RESULTS})")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the file is stale")
    arguments = parser.parse_args(argv)
    try:
        if not arguments.results.is_dir():
            raise ValueError(f"--results: {arguments.results} is no folder; expected that of the CSV files")
        found = pages(arguments.results)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.check:
        for path, text in found.items():
            write_text_atomically(path, text)
        print(f"wrote {', '.join(map(str, found))}")
        return
    stale = [path for path, text in found.items() if not path.exists() or path.read_text("utf-8") != text]
    if stale:
        sys.exit(f"{stale[0]} is not what the records beside it give: run python -m tools.report")
    print(f"{', '.join(map(str, found))}: current")


if __name__ == "__main__":
    main()

"""Make all pages that show records: results/README.md has the paper's tables beside our numbers.

Also results/STUDY.md of the studies, the pages of results/latency and results/benchmarks, and the tables
between markers in README.md and docs/**/*.md, which are looked for beside the folder of results.

    python -m tools.report
    python -m tools.report --check     # exit status 1 if a file is not what the records give
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config.load import COCO, IMAGENET
from engine.files import write_text_atomically
from engine.processes.program import errors_told_by, to_path
from pwlu.suggestion import expected_one_of
from tools.records import tool_parser
from tools.study.page import networks_table, plan_table, study_page
from tools.tables.keys import keys_table
from tools.tables.measurements import RESULTS
from tools.tables.pages import latency_pages, operator_pages, results_page
from tools.tables.short import (
    demo_coco_table,
    demo_table,
    latency_ratios,
    operator_cpu_table,
    training_step_table,
)

# A page shows one of these tables between two lines of its own,
#     <!-- table: demo -->
#     <!-- end -->
# which `python -m tools.report` fills and `--check` compares. A page is README.md or docs/**/*.md.
MARKED_TABLES: dict[str, Callable[[Path], list[str]]] = {
    "demo": demo_table,
    "demo-coco": demo_coco_table,
    "studies": networks_table,
    "plan": plan_table,
    "operator-cpu": operator_cpu_table,
    "training-step": training_step_table,
    "latency-cpu": lambda results: latency_ratios(results / "latency" / "cpu.json"),
    "keys-imagenet": lambda results: keys_table(IMAGENET),
    "keys-coco": lambda results: keys_table(COCO),
}
_MARKED = re.compile(r"^<!-- table: (\S+) -->\n(.*?)^<!-- end -->$", re.DOTALL | re.MULTILINE)


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


def _marked_pages(root: Path) -> list[Path]:
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in found if page.is_file() and "<!-- table:" in page.read_text("utf-8")]


def pages(results: Path) -> dict[Path, str]:
    """Return all that is generated, by file. Errors as in the functions that make them."""
    studies = study_page(results)
    return {
        results / "README.md": results_page(results, studies),
        **studies,
        **latency_pages(results),
        **operator_pages(results),
        **{page: fill_markers(page, results) for page in _marked_pages(results.parent)},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pages, or check that they are current."""
    parser = tool_parser("report", __doc__)
    parser.add_argument("--results", type=to_path, default=RESULTS, help=f"folder of the records ({RESULTS})")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is stale")
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        if not arguments.results.is_dir():
            raise ValueError(f"--results: {arguments.results} is no folder; expected that of the records")
        found = pages(arguments.results)
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

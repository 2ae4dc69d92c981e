"""Make results/README.md: the paper's tables beside our numbers, from the CSV files in results/.

Also results/STUDY.md from results/small_study_*.csv and the pages of Table 4 from results/latency/*.json; the
pictures in results/figures are shown.

    python -m tools.report
    python -m tools.report --check     # exit status 1 if a file is not what the records give

Each table shows runs of one scale. A cell without a run shows a dash.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.files import write_text_atomically
from tools.collect import RESULTS, csv_path
from tools.command_line import tool_parser
from tools.paper.grid import SCALES, TABLES, load_grid
from tools.report_pages import figure_lines, latency_lines, latency_pages
from tools.study.page import link_lines, study_page
from tools.tables.markdown import MISSING, read_measurements, table_lines

_HEAD = """# Results beside the paper's

Made by `python -m tools.report` from the CSV files in this folder, which `python -m tools.collect` takes from
the records of runs; do not edit. The paper's numbers are those of [paper.csv](paper.csv).

All numbers are percent. *ours* is the mean ± the standard deviation over n runs that differ in the seed, of
the evaluation after the last step; *difference* is ours minus the paper's; — is a missing run. A run that
diverged, as its loss became NaN or infinite, is counted as such, not in n, and is in no mean. The last column
has each run's folder, the hash of its configuration, the commit (`+changes`: with files that differed from
it) and the day. What a scale sets: [configs/sweeps](../configs/sweeps); what the paper leaves open:
[configs/README.md](../configs/README.md).
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


def pages(results: Path) -> dict[Path, str]:
    """Return all that is generated, by file. Errors as in the functions that make them."""
    return {
        results / "README.md": report(results),
        **study_page(results),
        **latency_pages(results),
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

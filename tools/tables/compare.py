"""Compare finished runs that differ in the activation and the seed alone.

    python -m tools.tables.compare runs/digits_r18_* --output results/demo/digits_r18_pwlu.json

Prints a table in Markdown; writes a record of every run: settings, final metrics, commit, hardware, versions.
"""

import json
from collections.abc import Sequence
from typing import Any

from engine.files import write_text_atomically
from engine.processes.program import errors_told_by, to_path
from tools.records import tool_parser
from tools.tables.measurements import read_run
from tools.tables.short import comparison_table

FREE_SETTINGS = ("activation.name", "seed")


def require_comparable(runs: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError, naming the setting, if runs differ in more than the activation and the seed."""
    for run in runs[1:]:
        for key, value in (run["settings"] | run["data"]).items():
            first = (runs[0]["settings"] | runs[0]["data"]).get(key)
            if key not in FREE_SETTINGS and value != first:
                raise ValueError(
                    f"the runs are not comparable: {key} is {first!r} in one and {value!r} in another"
                )


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, write the record, print the table."""
    parser = tool_parser("tables.compare", __doc__)
    parser.add_argument("runs", nargs="+", type=to_path, help="folders of finished runs")
    parser.add_argument("--output", required=True, type=to_path, help="the record, .json")
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        runs = [read_run(folder) for folder in arguments.runs]
        require_comparable(runs)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(arguments.output, json.dumps({"runs": runs}, indent=1) + "\n")
        print("\n".join(comparison_table(runs)))


if __name__ == "__main__":
    main()

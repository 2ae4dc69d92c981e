"""Draw the improvements over ReLU of the paper's Figures 1 and 5 from Table 2: the paper's numbers and ours.

    python -m tools.tables.improvements --scale smoke
    python -m tools.tables.improvements --scale full --output results/figures --figures 1

Figure 1 has a strip of networks per activation function, Figure 5 a group of activation functions per
network. Writes OUTPUT/<scale>_figure1.png and _figure5.png, and beside each a .json with the numbers, and the
runs and commits they come from. Our numbers are those of results/<scale>_table2.csv, from tools.collect.

An improvement is the mean over seeds of an activation function minus that of ReLU, in percentage points. Its
error bar is the root of the sum of both variances over seeds, as for independent runs; where either side has
one seed, it has none. Without a run, of the activation function or of ReLU, it is missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.collect import RESULTS
from tools.command_line import tool_parser
from tools.drawing import FIGURES
from tools.paper.grid import SCALES
from tools.records import write_figure
from tools.tables.improvement_figures import DRAW
from tools.tables.numbers import TableNumbers, read_table
from tools.tables.over_relu import TABLE, sides


def record_of(figure: int, numbers: TableNumbers) -> dict[str, Any]:
    """Return what a figure shows, as plain values: improvements in percentage points, with their runs."""
    paper, ours = sides(numbers).values()
    return {
        "figure": figure,
        "scale": numbers.scale,
        "dataset": numbers.dataset,
        "unit": "percentage points of top-1 over ReLU",
        "improvements": [
            {
                "activation": activation,
                "network": network,
                "paper": published.describe()["mean"] if published else None,
                "ours": found.describe() if (found := ours[activation][network]) else None,
            }
            for activation, networks in paper.items()
            for network, published in networks.items()
        ],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line names."""
    parser = tool_parser("improvements", __doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="of our runs (full)")
    parser.add_argument("--output", type=Path, default=FIGURES, help=f"folder of the pictures ({FIGURES})")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the CSVs ({RESULTS})")
    parser.add_argument("--figures", type=int, nargs="+", choices=DRAW, default=list(DRAW), help="1 5, both")
    arguments = parser.parse_args(argv)
    try:
        numbers = read_table(TABLE, arguments.scale, arguments.results)
    except ValueError as error:
        parser.error(str(error))
    for figure in arguments.figures:
        picture = arguments.output / f"{arguments.scale}_figure{figure}.png"
        write_figure(picture, DRAW[figure](numbers), record_of(figure, numbers), indent=1)


if __name__ == "__main__":
    main()

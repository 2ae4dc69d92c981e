"""Draw a record of tools.latency (Table 4): the time of each activation function relative to ReLU.

    python -m tools.latency.figure results/latency/cpu.json

Writes the picture beside the record, with the suffix .png. A point is the median of the ratios to ReLU in the
same runtime and round; its bar goes from the 10th to the 90th percentile of the activation's own times,
divided by their median and multiplied by that ratio. Diamonds are the paper's Table 4, measured on a V100.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from engine.processes.program import errors_told_by, to_path
from engine.records.console import say
from engine.records.curves import render
from engine.records.record import write_picture
from pwlu_ext.benchmarks.page import Row
from tools.drawing import GREY, color, finish, legend_above, marker, new_figure
from tools.latency.table import KINDS, Paper, machine, paper_time, read_latency, table_4
from tools.paper.numbers import PAPER
from tools.records import counted, tool_parser

PAPER_LABEL = "paper, V100"


def draw_latency(record: Row, paper: Paper) -> Figure:
    """Draw a panel per network and kind of measurement: activation functions downwards, time to the right."""
    kinds = [kind for kind in KINDS if record[kind]]
    families = {kind: list(dict.fromkeys(row["model"] for row in record[kind])) for kind in kinds}
    columns = max(map(len, families.values()))
    heights = [_height(record[kind]) for kind in kinds]
    figure = new_figure(1.4 + 3.1 * columns, 0.9 + sum(heights))
    panels = figure.subplots(
        len(kinds), columns, squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    for line, kind in zip(panels, kinds, strict=True):
        for panel, model in zip(line, families[kind], strict=False):
            rows = [row for row in record[kind] if row["model"] == model]
            _draw_model(panel, rows, paper if kind == "inference" else {})
            panel.set_title(f"{model}\n{KINDS[kind]}", fontsize=9)
        for panel in line[len(families[kind]) :]:
            panel.set_axis_off()
    for panel in panels[-1]:
        panel.set_xlabel("time relative to ReLU", fontsize=8)
    legend_above(figure, panels[0][0], columns=4)
    figure.supxlabel(_caption(record), fontsize=7, color=GREY)
    return figure


def _height(rows: Sequence[Row]) -> float:
    """Return the inches that a panel needs: room for every activation in every runtime and in the paper."""
    names, runtimes = ({row[key] for row in rows} for key in ("activation", "runtime"))
    return max(2.6, 0.085 * len(names) * (len(runtimes) + 1))


def _draw_model(panel: Axes, rows: Sequence[Row], paper: Paper) -> None:
    """Draw the rows of one network, a colour and shape per runtime."""
    names = list(dict.fromkeys(row["activation"] for row in rows))
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    lanes = len(runtimes) + 1  # the last is the paper's
    shifts = [0.8 * ((lane + 0.5) / lanes - 0.5) for lane in range(lanes)]
    for index, (runtime, shift) in enumerate(zip(runtimes, shifts, strict=False)):
        found = [row for row in rows if row["runtime"] == runtime]
        panel.errorbar(
            [row["ratio_to_relu"] for row in found],
            [names.index(row["activation"]) + shift for row in found],
            xerr=[[_reach(row, "p10_ms") for row in found], [_reach(row, "p90_ms") for row in found]],
            fmt=marker(index),
            color=color(index),
            markersize=4.5,
            linewidth=1.2,
            label=runtime,
        )
    _draw_paper(panel, rows[0]["model"], names, paper, shifts[-1])
    panel.axvline(1, color=GREY, linestyle="--", linewidth=0.9, zorder=0.5)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    finish(panel)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _draw_paper(panel: Axes, model: str, names: Sequence[str], paper: Paper, shift: float) -> None:
    """Draw the paper's ratios of a network, as far as it has them."""
    times = {name: paper_time(paper, model, name) for name in names}
    relu = times["relu"]
    if relu is not None:
        known = [(time / relu, names.index(name) + shift) for name, time in times.items() if time is not None]
        ratios, positions = zip(*known, strict=True)
        empty: dict[str, Any] = {"color": "black", "markerfacecolor": "none", "markersize": 5}
        panel.plot(ratios, positions, "D", label=PAPER_LABEL, zorder=3, **empty)


def _reach(row: Row, percentile: str) -> float:
    """Return how far a point's bar reaches to the side of one of its percentiles."""
    return abs(row[percentile] / row["p50_ms"] - 1) * row["ratio_to_relu"]


def _caption(record: Row) -> str:
    arguments = record["arguments"]
    rounds = counted(arguments["iterations"], "round")
    size = f"{arguments['image_size']} px"
    images = counted(arguments["batch_size"], "image")
    batches = [f"{images} of {size} in inference"] * bool(record["inference"])
    if record["training_step"]:
        batches.append(f"{arguments['training_batch_size']} images of {size} in training")
    return (
        f"{machine(record['environment']['hardware'])};\n{', '.join(batches)};\n"
        f"medians of {rounds}, bars: 10th to 90th percentile of the times"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the record that the command line names."""
    parser = tool_parser("latency.figure", __doc__)
    parser.add_argument("record", type=to_path, help="what tools.latency wrote, .json")
    arguments = parser.parse_args(argv)
    with errors_told_by(parser):
        figure = draw_latency(read_latency(arguments.record), table_4(PAPER))
        picture = arguments.record.with_suffix(".png")
        write_picture(picture, render(figure))
        say(f"picture: {picture}")


if __name__ == "__main__":
    main()

"""The Markdown pages of the benchmarks' records."""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from engine.runs.manifest import short_commit

Row = dict[str, Any]
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2}
# (call, what its time is divided by)
RATIOS = (
    ("pwlu", "copy"),
    ("pwlu", "silu"),
    ("folded", "silu"),
    ("pwlu backward", "copy"),
    ("pwlu backward", "silu backward"),
)


def operator_page(record: Row) -> str:
    """Return the page of a record of operator_cpu or operator_gpu."""
    sections = record["sections"]
    gpu = record["benchmark"] == "operator_gpu"
    blocks = {
        f"# The operator on a {'GPU' if gpu else 'CPU'}": [
            heading(record),
            "",
            *ratios_table(sections["cases"]),
        ],
        "## All times in milliseconds": times_table(sections["cases"]),
        "## Milliseconds by number of intervals": by_count(
            sections["intervals"], lambda row: row["num_intervals"], lambda row: tensor(row, functions=False)
        ),
    }
    if not gpu:
        blocks |= cpu_blocks(sections)
    return page(record, blocks)


def cpu_blocks(sections: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Return what only a CPU's page has."""
    call = sections["single_call"][0]["milliseconds"]
    names = [name for name in call if name.startswith("pwlu")]
    single = [(name, call[name], call[name.replace("pwlu", "prelu")]) for name in names]
    return {
        "## A call on a tensor of 1x64x7x7": table(
            ["call", "pwlu (ms)", "prelu (ms)", "ratio"],
            [[name, f"{ours:.4f}", f"{other:.4f}", f"{ours / other:.2f}"] for name, ours, other in single],
        ),
        "## Milliseconds by number of functions (8x256x28x28 elements divided among them)": by_count(
            sections["channels"], lambda row: row["shape"][1], lambda row: f"{row['threads']} threads"
        ),
        "## Milliseconds by number of threads": by_count(
            sections["threads"], lambda row: row["threads"], tensor
        ),
    }


def heading(record: Row) -> str:
    """Return what was measured, where and how."""
    environment, arguments = record["environment"], record["arguments"]
    if record["benchmark"] == "operator_cpu":
        machine = (
            f"{environment['processor']}, {arguments['threads']} threads, {environment['pwlu']['cpu_isa']}"
        )
        how = f"best of {arguments['rounds']} interleaved rounds"
    elif arguments["device"] == "cpu":
        return (
            "A dry run on a CPU with tiny tensors: it shows that the program runs; its numbers mean nothing."
        )
    else:
        machine = f"{environment['gpu']} ({environment['multiprocessors']} multiprocessors)"
        how = (
            f"medians of {arguments['rounds']} interleaved rounds, tensors of at least "
            f"{arguments['mebibytes']:g} MiB that no cache holds"
        )
    return (
        f"{machine}, torch {environment['torch']}, {origin(environment)}; {how}. 16 intervals unless stated; "
        "`backward` gives all six gradients. A copy moves two tensors, as a forward pass does; a backward "
        "pass moves three. [What limits it](../../pwlu_ext/benchmarks/README.md)."
    )


def ratios_table(rows: Sequence[Row]) -> list[str]:
    """Return a line per case: the copy's bandwidth and the times of PWLU relative to others'."""
    present = [pair for pair in RATIOS if pair[0] in rows[0]["milliseconds"]]
    body = []
    for row in rows:
        times = row["milliseconds"]
        moved = 2 * ELEMENT_BYTES[row["dtype"]] * prod(row["shape"])
        ratios = [f"{times[call] / times[other]:.2f}" for call, other in present]
        body.append([tensor(row), f"{moved / times['copy'] / 1e6:.0f}", *ratios])
    return table(["tensor", "copy (GB/s)", *(f"{call} / {other}" for call, other in present)], body)


def times_table(rows: Sequence[Row]) -> list[str]:
    """Return a line per case and a column per call."""
    names = list(dict.fromkeys(name for row in rows for name in row["milliseconds"]))
    body = [[tensor(row), *(cell(row["milliseconds"].get(name)) for name in names)] for row in rows]
    return table(["tensor", *names], body)


def by_count(rows: Iterable[Row], count: Callable[[Row], int], label: Callable[[Row], str]) -> list[str]:
    """Return a line per label and call, and a column per value of `count`."""
    times = {
        ((label(row), call), count(row)): time for row in rows for call, time in row["milliseconds"].items()
    }
    counts = sorted({value for _, value in times})
    lines = dict.fromkeys(line for line, _ in times)
    body = [[f"{call}, {where}", *(cell(times[(where, call), n]) for n in counts)] for where, call in lines]
    return table(["call", *map(str, counts)], body)


def kernels_page(record: Row) -> str:
    """Return the page of a record of inspect_kernels."""
    environment, arguments = record["environment"], record["arguments"]
    titles = {
        "registers": "registers",
        "warps_that_registers_allow": "warps they allow",
        "spill_bytes": "spills (bytes)",
        "stack_bytes": "stack (bytes)",
        "static_shared_bytes": "static shared memory (bytes)",
    }
    body = [
        [f"{row['kernel']}, {row['element']} x {row['vector']}", *(str(row[key]) for key in titles)]
        for row in record["sections"]["kernels"]
    ]
    text = (
        f"nvcc {arguments['nvcc']}, {origin(environment)}; what ptxas says, nothing was measured on a GPU. "
        "`float32 x 4`: elements per access to memory."
    )
    head = f"# What nvcc makes of the kernels for {arguments['architecture']}"
    return page(record, {head: [text, "", *table(["kernel", *titles.values()], body)]})


def page(record: Row, blocks: dict[str, list[str]]) -> str:
    """Return a file of headings with their lines."""
    lines = [f"<!-- Generated by pwlu_ext.benchmarks.{record['benchmark']} from the record beside it. -->"]
    for title, block in blocks.items():
        lines += [title, "", *block, ""]
    return "\n".join(lines)


def origin(environment: Row) -> str:
    """Return the commit and the date."""
    commit, _, changes = environment["commit"].partition("+")
    code = {"commit": commit, "uncommitted_changes": bool(changes)}
    return f"commit {short_commit(code)}, {environment['date']}"


def tensor(row: Row, functions: bool = True) -> str:
    """Return what a row is about: `8x256x28x28 float32 contiguous channel-wise`."""
    size = "x".join(map(str, row["shape"]))
    name = f"{size} {row['dtype']} {row['memory_format']}"
    return f"{name} {row['functions']}" if functions else name


def cell(milliseconds: float | None) -> str:
    """Return a time, or nothing where there is none."""
    return "" if milliseconds is None else f"{milliseconds:.4f}"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table with numbers in all but the first column."""
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] + ["---:"] * (len(head) - 1), *body]]


PAGES = {"operator_cpu": operator_page, "operator_gpu": operator_page, "inspect_kernels": kernels_page}

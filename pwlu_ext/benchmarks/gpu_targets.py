"""What the times of a record of operator_gpu.py come to, beside what they should."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

Row = dict[str, Any]

# Tensors read and written by a copy and by each pass, all of the same size.
COPY_STREAMS, FORWARD_STREAMS, BACKWARD_STREAMS = 2, 2, 3
FLAT = 1.1  # slowest over fastest number of intervals; the wish was "flat", the number is ours


@dataclass(frozen=True)
class Finding:
    """A number, what it should be (at least or at most), and whether it is."""

    case: str
    what: str
    value: float
    limit: float
    at_least: bool = False
    flat: bool = False  # of the section on numbers of intervals

    @property
    def met(self) -> bool:
        """Whether the number, unrounded, is what it should be."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def findings(sections: dict[str, list[Row]]) -> list[Finding]:
    """Every target of every row."""
    found = [finding for row in sections["cases"] for finding in of_case(row)]
    return found + list(of_intervals(sections["intervals"]))


def described(found: list[Finding]) -> list[Row]:
    """The findings as plain values, for a record."""
    return [{**asdict(finding), "value": round(finding.value, 4), "met": finding.met} for finding in found]


def name_of(row: Row) -> str:
    """`bfloat16 channels_last 96x256x28x28`."""
    return f"{row['dtype']} {row['memory_format']} {'x'.join(map(str, row['shape']))}"


def medians(row: Row) -> dict[str, float]:
    """Milliseconds of each call."""
    return {call: times["p50"] for call, times in row["milliseconds"].items()}


def copy_rate(row: Row) -> float:
    """GB/s that the copy of this row moved, bytes read and written."""
    return COPY_STREAMS * row["tensor_bytes"] / medians(row)["copy"] / 1e6


def share_of_limit(row: Row, call: str, streams: int) -> float:
    """The time that `streams` tensors take at the copy's rate, over the time of a call."""
    times = medians(row)
    return times["copy"] * streams / COPY_STREAMS / times[call]


def of_case(row: Row) -> Iterator[Finding]:
    """Forward, backward and folded form of one case."""
    name, times = name_of(row), medians(row)
    for call in ("pwlu", "folded"):
        share = share_of_limit(row, call, FORWARD_STREAMS)
        yield Finding(name, f"{call}: share of the copy's bandwidth", share, 0.9, at_least=True)
        yield Finding(name, f"{call} / silu", times[call] / times["silu"], 1.0)
    share = share_of_limit(row, "pwlu backward", BACKWARD_STREAMS)
    yield Finding(name, "pwlu backward: share of the limit of three streams", share, 0.8, at_least=True)
    ratio = times["pwlu backward"] / times["silu backward"]
    yield Finding(name, "pwlu backward / silu backward", ratio, 1.15)
    for call, same in row["same_bits"].items():
        yield Finding(name, f"{call}: two runs have the same bits", float(same), 1.0, at_least=True)


def of_intervals(rows: list[Row]) -> Iterator[Finding]:
    """Flatness in the number of intervals, for every dtype and layout."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(name_of(row), []).append(row)
    for name, group in groups.items():
        for call in group[0]["milliseconds"]:
            times = [medians(row)[call] for row in group]
            counts = f"{group[0]['num_intervals']} to {group[-1]['num_intervals']} intervals"
            what = f"{call}: slowest / fastest of {counts}"
            yield Finding(name, what, max(times) / min(times), FLAT, flat=True)

"""What `calibrate` did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .module import PWLU
from .sharding import whole
from .surgery.report import aligned


@dataclass(frozen=True)
class CalibratedSite:
    """One PWLU.

    Attributes:
        name: qualified name of the module.
        starts_as: its starting function.
        left: the smallest and the largest B_L of its functions.
        right: the same of B_R.
        gap: the largest of `PWLU.start_gap`: the distance from the starting function between the boundaries,
            in standard deviations of the input.
        calibrated: False where it had no input, and is as it was.
    """

    name: str
    starts_as: str
    left: tuple[float, float]
    right: tuple[float, float]
    gap: float
    calibrated: bool


@dataclass(frozen=True)
class CalibrationReport:
    """Every PWLU, and how far the model's outputs moved; `print` it for a table.

    Attributes:
        sites: the PWLUs in the model's order.
        num_batches: how many batches all processes read.
        largest_change: of an output for the first batch of every process, when the starting functions became
            PWLUs; None if there are no floating-point outputs, or their shapes differ before and after.
        largest_output: the largest absolute value among these outputs, before; None likewise.
    """

    sites: tuple[CalibratedSite, ...]
    num_batches: int
    largest_change: float | None
    largest_output: float | None

    def __str__(self) -> str:
        rows = [("site", "starts as", "left", "right", "gap"), *map(_row, self.sites)]
        return "\n".join([*aligned(rows, "<<>>>"), self.summary()])

    def summary(self) -> str:
        """Return the table's last line.

        For example `calibrated 17 of 17 sites on 8 batches; outputs for the first moved by at most 0.05
        (largest output: 12.3)`.
        """
        calibrated = sum(site.calibrated for site in self.sites)
        batches = f"{self.num_batches} batch{'es' if self.num_batches > 1 else ''}"
        text = f"calibrated {calibrated} of {len(self.sites)} sites on {batches}; outputs "
        if self.largest_change is None:
            return text + "cannot be compared"
        moved, largest = f"{self.largest_change:.3g}", f"{self.largest_output:.3g}"
        return text + f"for the first moved by at most {moved} (largest output: {largest})"


def output_changes(before: Any, after: Any) -> tuple[float, float]:
    """Return the largest change and the largest absolute value before; both -1 for none or other shapes."""
    olds, news = ([t for t in tree_leaves(outputs) if _has_numbers(t)] for outputs in (before, after))
    if not olds or [t.shape for t in olds] != [t.shape for t in news]:
        return -1.0, -1.0
    change = largest = 0.0
    for old, new in zip(olds, news, strict=True):
        same = (old == new) | (old.isnan() & new.isnan())
        moved = torch.where(same, 0, (old - new).abs())
        change = max(change, float(torch.where(moved.isnan(), torch.inf, moved).max()))
        largest = max(largest, float(old.abs().nan_to_num(0, 0).max()))
    return change, largest


def site_report(name: str, site: PWLU, calibrated: bool) -> CalibratedSite:
    """Return the report of one PWLU as it is now."""
    left, right = (tuple(whole(b).aminmax()) for b in (site.left, site.right))
    return CalibratedSite(
        name,
        site.starts_as,
        (float(left[0]), float(left[1])),
        (float(right[0]), float(right[1])),
        float(site.start_gap().max()),
        calibrated,
    )


def _has_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0


def _row(site: CalibratedSite) -> tuple[str, ...]:
    gap = f"{site.gap:.3f}" if site.calibrated else "no input"
    return site.name or "(model)", site.starts_as, _range(site.left), _range(site.right), gap


def _range(ends: tuple[float, float]) -> str:
    low, high = (f"{end:.3g}" for end in ends)
    return low if low == high else f"{low} to {high}"

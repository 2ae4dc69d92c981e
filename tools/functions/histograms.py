"""Histograms of what flows into chosen functions of a network's PWLUs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tools.functions.site_inputs import Network

BINS = 60


@dataclass
class InputHistogram:
    """Counts of the inputs of some of a layer's functions in equal bins over [low, high).

    `counts` is int64 (functions, BINS + 2): below `low`, the bins, and from `high` on.
    """

    functions: Sequence[int]
    low: float
    high: float
    counts: Tensor

    def add(self, rows: Tensor) -> None:
        """Count inputs, (all functions of the layer, elements).

        Raises:
            ValueError: a NaN, which belongs to no bin.
        """
        chosen = rows[list(self.functions)]
        if torch.isnan(chosen).any():
            raise ValueError(f"{int(torch.isnan(chosen).sum())} of {chosen.numel()} inputs are NaN")
        place = (chosen.double() - self.low) / (self.high - self.low) * BINS
        bins = (place.floor().clamp(-1, BINS) + 1).long()
        first = torch.arange(len(chosen), device=rows.device)[:, None] * (BINS + 2)
        found = torch.bincount((bins + first).flatten(), minlength=self.counts.numel())
        self.counts += found.view_as(self.counts).cpu()

    def shares(self) -> Tensor:
        """Return each function's share of inputs per bin, float64 (functions, BINS); the rest is outside.

        Without any input all are 0.
        """
        return self.counts[:, 1:-1].double() / self.counts.sum(1, keepdim=True).clamp(min=1)

    def outside(self) -> float:
        """Return the share of all the functions' inputs below `low` or from `high` on."""
        return (self.counts[:, [0, -1]].sum().double() / self.counts.sum().clamp(min=1)).item()

    def describe(self) -> dict[str, Any]:
        """Return the range and the counts as plain values."""
        return {"low": self.low, "high": self.high, "counts": self.counts.tolist()}


def input_histograms(
    network: Network,
    functions: Mapping[str, Sequence[int]],
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, InputHistogram]:
    """Return, by layer, the histograms of chosen functions over the layer's range, in one pass of the images.

    Where nothing flows into a layer (a detector's mask head, if nothing is detected) all counts are 0.

    Raises:
        ValueError: an input is NaN, or an image cannot be read.
    """
    histograms = {
        name: InputHistogram(chosen, *ranges[name], torch.zeros(len(chosen), BINS + 2, dtype=torch.int64))
        for name, chosen in functions.items()
    }
    network.watch(lambda name, rows: histograms[name].add(rows), list(histograms), "input histograms")
    return histograms

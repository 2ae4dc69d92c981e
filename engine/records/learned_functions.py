"""Learned functions as plain numbers: from a PWLU, to and from JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pwlu import PWLU

DIGITS = 7  # significant ones in JSON; float32 has hardly more
PARAMETERS = ("left", "right", "points", "left_slope", "right_slope")


@dataclass(frozen=True)
class LearnedFunction:
    """One function of Eq. 1: boundaries, heights of the num_intervals + 1 points, outer slopes."""

    left: float
    right: float
    points: Sequence[float]
    left_slope: float
    right_slope: float

    def corners(self, margin: float = 0.15) -> tuple[Tensor, Tensor]:
        """Return x and y, float32, of the demarcation points (Eq. 3) between the ends of both tails.

        Tails are `margin` times as long as the region is wide.
        """
        points = torch.tensor(self.points, dtype=torch.float32)
        knots = torch.linspace(self.left, self.right, len(points))
        tail = margin * abs(self.right - self.left)
        x = torch.cat([torch.tensor([self.left - tail]), knots, torch.tensor([self.right + tail])])
        ends = (points[:1] - tail * self.left_slope, points[-1:] + tail * self.right_slope)
        return x, torch.cat([ends[0], points, ends[1]])


@dataclass(frozen=True)
class LayerFunctions:
    """Some of a layer's `total` functions, by channel (0 in a layer-wise PWLU)."""

    total: int
    functions: Mapping[int, LearnedFunction]

    @classmethod
    def of(cls, layer: PWLU, channels: Sequence[int]) -> "LayerFunctions":
        chosen = [getattr(layer, name).detach()[list(channels)].float().tolist() for name in PARAMETERS]
        functions = (LearnedFunction(*values) for values in zip(*chosen, strict=True))
        return cls(layer.num_parameters, dict(zip(channels, functions, strict=True)))

    def to_json(self) -> dict[str, Any]:
        lists = {
            name: [_rounded(getattr(function, name)) for function in self.functions.values()]
            for name in PARAMETERS
        }
        return {"functions": self.total, "channels": list(self.functions), **lists}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LayerFunctions":
        """Invert `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        lists = [[_restored(value) for value in values[name]] for name in PARAMETERS]
        functions = (LearnedFunction(*parameters) for parameters in zip(*lists, strict=True))
        return cls(int(values["functions"]), dict(zip(values["channels"], functions, strict=True)))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    return math.nan if value is None else float(value)

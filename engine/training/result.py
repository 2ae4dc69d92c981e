"""What an optimizer step came to, as numbers that reach the host while the device goes on."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class StepResult:
    """The losses of one step over the global batch and the requests to stop, the same on every process.

    Reading `loss`, `is_finite` or `stop_requested` waits for the device.

    Attributes:
        terms: the names of the terms of the loss.
        sums: the terms, each the mean over the global batch: float64 (terms,) on the device.
        realigned: phase I ends with this step, unless the loss is not finite.
    """

    def __init__(self, terms: Sequence[str], numbers: Tensor, realigned: bool) -> None:
        """Take `numbers`: `sums`, and after them how many processes were asked to stop."""
        self.terms, self.sums, self.realigned = tuple(terms), numbers[:-1], realigned
        self._arrived: torch.cuda.Event | None = None
        self._on_host = numbers
        if numbers.is_cuda:
            self._on_host = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._on_host.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @cached_property
    def _numbers(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._on_host.tolist()

    @property
    def loss(self) -> float:
        return sum(self._numbers[:-1])

    @property
    def stop_requested(self) -> bool:
        """Whether at least one process was asked to stop."""
        return self._numbers[-1] > 0

    @property
    def is_finite(self) -> bool:
        """Whether the loss is a number; if not, the optimizer left the step out."""
        return math.isfinite(self.loss)


class MeanLosses:
    """The mean of each term of the loss since the last record, added up on the device."""

    def __init__(self) -> None:
        self._terms: tuple[str, ...] = ()
        self._totals = torch.zeros(0, dtype=torch.float64)
        self._count = 0

    def add(self, result: StepResult) -> None:
        """Add a step's losses, without waiting for them."""
        if self._terms:
            self._totals = self._totals.to(result.sums.device) + result.sums
        else:
            self._totals = result.sums
        self._terms, self._count = result.terms, self._count + 1

    def take(self) -> dict[str, float]:
        """Return the mean `loss` and, of a loss with several terms, the mean of each; start anew."""
        means = {name: total / self._count for name, total in self._by_term().items()}
        self._terms, self._count = (), 0
        return {"loss": sum(means.values())} | (means if len(means) > 1 else {})

    def _by_term(self) -> dict[str, float]:
        return dict(zip(self._terms, self._totals.tolist(), strict=True)) if self._terms else {}

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"totals": self._by_term(), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        totals: dict[str, float] = state["totals"]
        self._terms, self._count = tuple(totals), state["count"]
        self._totals = torch.tensor(list(totals.values()), dtype=torch.float64)

"""Exponential moving average of a model's weights and running statistics."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


class Ema:
    """Averaged weights, which the model holds during an evaluation only.

    Args:
        model: the model; its tensors must be updated in place, never replaced.
        decay: share of the old average that an update keeps, in (0, 1).
    """

    # No second model: what is not a tensor (PWLU's phase, a compiled forward) cannot differ between the two.

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live: dict[str, torch.Tensor] = dict(model.state_dict())
        self._average = {name: tensor.clone() for name, tensor in self._live.items()}
        averaged = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._copied = [name for name in self._live if name not in set(averaged)]  # counters
        self._pairs = ([self._average[name] for name in averaged], [self._live[name] for name in averaged])

    @torch.no_grad()
    def update(self) -> None:
        # The first updates keep less, so that the random initial weights are soon forgotten.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, live = self._pairs
        torch._foreach_lerp_(average, live, 1.0 - decay)
        self.copy(self._copied)
        self.updates += 1

    @torch.no_grad()
    def copy(self, names: list[str]) -> None:
        """Replace the averages of some tensors (named as in `model.state_dict()`) by the present values."""
        for name in names:
            self._average[name].copy_(self._live[name])

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Inside the block the model holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live.items():
            kept = live.clone()
            live.copy_(self._average[name])
            self._average[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "weights": dict(self._average)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average. Raises KeyError where it lacks a tensor of the model."""
        self.updates = state["updates"]
        for name, average in self._average.items():
            average.copy_(state["weights"][name])

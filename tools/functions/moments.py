"""Means, variances and covariances of streams of numbers, exact for constants."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over pairs of x and y, float64 (functions,), from which follow their variances and covariance.

    The first pair of each function is subtracted from all: sums of large numbers then cancel in what varies
    alone, and what does not vary has variance 0 and nothing else.
    """

    _first: tuple[Tensor, Tensor] | None = None
    _sums: Tensor | None = None  # (6, functions): 1, x, y, x x, y y, x y

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count pairs, (functions, elements), elements > 0."""
        x, y = x.double().cpu(), y.double().cpu()
        if self._first is None or self._sums is None:
            self._first = x[:, :1].clone(), y[:, :1].clone()
            self._sums = torch.zeros(6, len(x), dtype=torch.float64)
        x, y = x - self._first[0], y - self._first[1]
        terms = torch.ones_like(x), x, y, x * x, y * y, x * y
        self._sums += torch.stack([term.sum(1) for term in terms])

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return var(x), var(y) and cov(x, y), divided by the count. Raises ValueError if that is 0."""
        if self._sums is None:
            raise ValueError("moments of no numbers; add some first")
        n, x, y, xx, yy, xy = self._sums
        of_x, of_y, both = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2, xy / n - x * y / n**2
        return of_x.clamp(min=0), of_y.clamp(min=0), both

    def explained(self) -> Tensor:
        """Return the squared correlation: the share of y's variance that a straight line in x explains.

        1 where x or y does not vary.
        """
        of_x, of_y, both = self.covariances()
        product = of_x * of_y
        return torch.where(product > 0, both * both / product, 1.0).clamp(max=1)

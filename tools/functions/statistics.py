"""Statistics of numbers that arrive in batches, in bounded memory: histograms, quantiles, covariances."""

from typing import Self

import torch
from torch import Tensor


class Histogram:
    """Counts per row of values between ascending `edges`, float64 (edges,) for all rows or (rows, edges).

    `counts` is int64 (rows, edges + 1): below the first edge, between the edges, from the last edge on.
    """

    def __init__(self, rows: int, edges: Tensor) -> None:
        self.edges = edges
        self.counts = torch.zeros(rows, edges.shape[-1] + 1, dtype=torch.int64)

    @classmethod
    def between(cls, low: Tensor, high: Tensor, bins: int) -> Self:
        """Return a histogram of equal bins from `low` to `high`, both (rows,)."""
        low, high = low.detach().double().cpu(), high.detach().double().cpu()
        width = (high - low).clamp(min=0)  # crossed boundaries have nothing between them
        shares = torch.arange(bins + 1, dtype=torch.float64) / bins
        return cls(len(low), low[:, None] + width[:, None] * shares)

    def add(self, values: Tensor) -> None:
        """Count finite values, (rows, n)."""
        self.edges, self.counts = self.edges.to(values.device), self.counts.to(values.device)
        rows, places = self.counts.shape
        place = torch.searchsorted(self.edges, values.double().contiguous(), right=True)
        first = torch.arange(rows, device=values.device)[:, None] * places
        found = torch.bincount((first + place).flatten(), minlength=rows * places)
        self.counts += found.view(rows, places)

    def shares(self) -> Tensor:
        """Return each row's share of values between the edges, float64 (rows, edges - 1)."""
        return self.counts[:, 1:-1].double() / self.counts.sum(1, keepdim=True).clamp(min=1)

    def outside(self) -> float:
        """Return the share of all values that are beyond the edges."""
        return (self.counts[:, [0, -1]].sum().double() / self.counts.sum().clamp(min=1)).item()


class Quantiles(Histogram):
    """Quantiles of every row of a matrix whose columns arrive in batches.

    They are read off a histogram with 128 bins between powers of two: off by less than 0.8 % of themselves
    (by 2**-16 near zero), and much less where values are dense. Of those beyond 2**16 only the largest and
    the smallest are known. Memory: 64 KiB per row.
    """

    def __init__(self, rows: int) -> None:
        magnitudes = torch.logspace(-16, 16, 32 * 128 + 1, base=2, dtype=torch.float64)
        super().__init__(rows, torch.cat([-magnitudes.flip(0), torch.zeros(1).double(), magnitudes]))
        self._smallest = torch.full((rows,), torch.inf)
        self._largest = torch.full((rows,), -torch.inf)

    @property
    def count(self) -> int:
        return int(self.counts[0].sum())

    def add(self, values: Tensor) -> None:
        """Count finite values, (rows, n), n > 0."""
        super().add(values)
        self._smallest = torch.minimum(self._smallest, values.amin(1).float().cpu())
        self._largest = torch.maximum(self._largest, values.amax(1).float().cpu())

    def at(self, fraction: float) -> Tensor:
        """Return each row's quantile, float32 (rows,)."""
        counts, edges = self.counts.cpu().double(), self.edges.cpu()
        rank = fraction * (self.count - 1) + 0.5  # of `count` values, each in the middle of its place
        upto = counts.cumsum(1)
        place = (upto < rank).sum(1, keepdim=True)
        inside = counts.gather(1, place)
        share = (rank - upto.gather(1, place) + inside) / inside
        low, high = edges[(place - 1).clamp(min=0)], edges[place.clamp(max=len(edges) - 1)]
        found = (low + share * (high - low)).squeeze(1)
        return found.float().clamp(self._smallest, self._largest)


class Moments:
    """Variances and covariances of pairs of x and y, float64 (functions,)."""

    def __init__(self) -> None:
        self._first: tuple[Tensor, Tensor] | None = None
        self._sums = torch.zeros(6, 1, dtype=torch.float64)  # of 1, x, y, x x, y y, x y

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count pairs, (functions, elements), elements > 0."""
        x, y = x.double().cpu(), y.double().cpu()
        if self._first is None:
            self._first = x[:, :1].clone(), y[:, :1].clone()
        # Less the first pair, sums of large numbers cancel in what varies alone; a constant has variance 0.
        x, y = x - self._first[0], y - self._first[1]
        terms = torch.ones_like(x), x, y, x * x, y * y, x * y
        self._sums = self._sums + torch.stack([term.sum(1) for term in terms])

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return var(x), var(y) and cov(x, y), divided by the count."""
        n, x, y, xx, yy, xy = self._sums
        of_x, of_y, both = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2, xy / n - x * y / n**2
        return of_x.clamp(min=0), of_y.clamp(min=0), both

    def explained(self) -> Tensor:
        """Return the share of y's variance that a line explains, the squared correlation; 1 for constants."""
        of_x, of_y, both = self.covariances()
        product = of_x * of_y
        return torch.where(product > 0, both * both / product, 1.0).clamp(max=1)

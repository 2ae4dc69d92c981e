"""Statistics of streams of numbers in bounded memory: quantiles, histograms, covariances."""

from dataclasses import dataclass

import torch
from torch import Tensor

# A float32's highest 16 bits are its sign, its exponent and 7 bits of its mantissa.
_SHIFT = 16
_SMALLEST, _LARGEST = 2.0**-16, 2.0**16
_MAGNITUDES = 32 * 128  # 32 exponents, each cut into 128 bins


class Quantiles:
    """Quantiles of every row of a matrix whose columns arrive in batches.

    They are read off a histogram whose bins are 1/128 as wide as the values in them: off by less than 0.8 %
    of themselves (by 2**-16 near zero), and much less where values are dense. Of those beyond 2**16 only the
    largest and the smallest are known. Memory: 32 KiB per row.
    """

    def __init__(self, rows: int) -> None:
        self.count = 0  # values per row
        self._counts = torch.zeros(rows, 2 * _MAGNITUDES, dtype=torch.int32)
        self._smallest = torch.full((rows,), torch.inf)
        self._largest = torch.full((rows,), -torch.inf)

    def add(self, values: Tensor) -> None:
        """Count a batch, any float dtype, (rows, n), n > 0. Raises ValueError for NaN or infinite values."""
        values = values.detach().float()
        require_finite(values)
        self._counts = self._counts.to(values.device)
        rows, bins = self._counts.shape
        magnitude = values.abs().clamp(_SMALLEST, _LARGEST).contiguous().view(torch.int32) >> _SHIFT
        magnitude = (magnitude - _first_key()).clamp(max=_MAGNITUDES - 1)
        place = torch.where(values < 0, _MAGNITUDES - 1 - magnitude, _MAGNITUDES + magnitude)
        first = torch.arange(rows, device=values.device)[:, None] * bins
        self._counts += torch.bincount((first + place).flatten(), minlength=rows * bins).view(rows, bins)
        self._smallest = torch.minimum(self._smallest, values.amin(1).cpu())
        self._largest = torch.maximum(self._largest, values.amax(1).cpu())
        self.count += values.shape[1]

    def at(self, fraction: float) -> Tensor:
        """Return each row's quantile, float32 (rows,). Raises ValueError where there is no value."""
        if not self.count:
            raise ValueError("quantiles of no values; add some first")
        counts, edges = self._counts.cpu().double(), _edges()
        rank = fraction * (self.count - 1) + 0.5  # of `count` values, each in the middle of its place
        upto = counts.cumsum(1)
        bin_ = (upto < rank).sum(1).clamp(max=counts.shape[1] - 1)
        inside = counts.gather(1, bin_[:, None]).squeeze(1)
        before = upto.gather(1, bin_[:, None]).squeeze(1) - inside
        share = (rank - before) / inside
        found = edges[bin_] + share * (edges[bin_ + 1] - edges[bin_])
        return found.float().clamp(self._smallest, self._largest)


def require_finite(values: Tensor) -> None:
    """Raise ValueError if a value is NaN or infinite."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(f"{bad} of {values.numel()} inputs are NaN or infinite")


def _first_key() -> int:
    return int(torch.tensor(_SMALLEST).view(torch.int32)) >> _SHIFT


def _edges() -> Tensor:
    """Return the edges of a histogram's bins, ascending; zero is one of them."""
    keys = torch.arange(1, _MAGNITUDES + 1, dtype=torch.int32) + _first_key()
    magnitudes = (keys << _SHIFT).view(torch.float32).double()
    return torch.cat([-magnitudes.flip(0), torch.zeros(1, dtype=torch.float64), magnitudes])


@dataclass
class Moments:
    """Variances and covariances of pairs of x and y, float64 (functions,)."""

    _first: tuple[Tensor, Tensor] | None = None
    _sums: Tensor | None = None  # (6, functions): 1, x, y, x x, y y, x y

    def add(self, x: Tensor, y: Tensor) -> None:
        """Count pairs, (functions, elements), elements > 0."""
        x, y = x.double().cpu(), y.double().cpu()
        if self._first is None or self._sums is None:
            self._first = x[:, :1].clone(), y[:, :1].clone()
            self._sums = torch.zeros(6, len(x), dtype=torch.float64)
        # Less the first pair, sums of large numbers cancel in what varies alone; a constant has variance 0.
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
        """Return the share of y's variance that a line explains, the squared correlation; 1 for constants."""
        of_x, of_y, both = self.covariances()
        product = of_x * of_y
        return torch.where(product > 0, both * both / product, 1.0).clamp(max=1)


class Histogram:
    """Counts per row in equal bins from `low` to `high`, float (rows,).

    `counts` is int64 (rows, bins + 2): below `low`, the bins, and from `high` on.
    """

    def __init__(self, low: Tensor, high: Tensor, bins: int) -> None:
        self.low, self.high = low.detach().double().cpu(), high.detach().double().cpu()
        self.counts = torch.zeros(len(low), bins + 2, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Count values, (rows, n). Raises ValueError for a NaN, which belongs to no bin."""
        if values.isnan().any():
            raise ValueError(f"{int(values.isnan().sum())} of {values.numel()} inputs are NaN")
        rows, places = self.counts.shape
        low, high = self.low[:, None].to(values.device), self.high[:, None].to(values.device)
        width = (high - low).clamp(min=torch.finfo(torch.float64).tiny)  # crossed boundaries have no bins
        place = ((values.double() - low) / width * (places - 2)).floor().clamp(-1, places - 2).long() + 1
        first = torch.arange(rows, device=values.device)[:, None] * places
        found = torch.bincount((first + place).flatten(), minlength=rows * places)
        self.counts += found.view(rows, places).cpu()

    def shares(self) -> Tensor:
        """Return each row's share of values per bin, float64 (rows, bins), 0 without any value."""
        return self.counts[:, 1:-1].double() / self.counts.sum(1, keepdim=True).clamp(min=1)

    def outside(self) -> float:
        """Return the share of all values that are in no bin."""
        return (self.counts[:, [0, -1]].sum().double() / self.counts.sum().clamp(min=1)).item()

"""Exact quantiles of more numbers than memory holds, when they can be looked at three times."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PASSES = 3
_BUCKETS = 2048
# A float32 as an integer of the same order has 32 bits; the passes settle 11, 11 and 10 of them.
_SHIFTS = (21, 10, 0)
_MAGNITUDE = 0x7FFFFFFF


@dataclass
class _Search:
    """Where one quantile lies, per row: its highest bits so far, and its rank among the values with these."""

    prefix: Tensor  # int32 (rows,)
    rank: Tensor  # int64 (rows,)
    expected: Tensor  # int64 (rows,): values with this prefix


class ExactQuantiles:
    """Quantiles of every row of a matrix whose columns arrive in batches, three times over.

    A radix selection: each pass counts the values by the next bits of their float32 representation, among
    those that still can be the quantile. The answer is the element of the sorted row at position
    `round(fraction * (n - 1))`, as `torch.quantile(..., interpolation="nearest")`: one of the values
    themselves, with error 0 whatever their distribution. (Linear interpolation would differ by less than the
    distance to the next value.) Memory: 16 KiB per row and fraction however many values come, and 16 KiB per
    row more while a batch is counted.

    Args:
        rows: number of rows.
        fractions: the quantiles wanted, each in [0, 1].
    """

    def __init__(self, rows: int, fractions: Sequence[float]) -> None:
        self._rows, self._fractions = rows, tuple(fractions)
        self._pass = 0
        self._searches: list[_Search] = []
        self._counts: list[Tensor] = []  # by fraction, after the first pass; one for all in it
        self.count = 0  # values per row, known after the first pass
        self._seen = 0

    def update(self, values: Tensor) -> None:
        """Count a batch, any float dtype, shape (rows, n); it is compared as float32.

        Raises:
            ValueError: a NaN or an infinite value, or a wrong shape.
        """
        if values.dim() != 2 or values.shape[0] != self._rows:
            raise ValueError(f"values have shape {tuple(values.shape)}, expected ({self._rows}, n)")
        values = values.detach().float()
        if not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values)).sum())
            raise ValueError(f"{bad} of {values.numel()} values are NaN or infinite: quantiles mean nothing")
        keys = _ordered(values)
        self._seen += values.shape[1]
        for number, row, key in self._candidates(keys):
            digit = (key >> _SHIFTS[self._pass]) + (_BUCKETS // 2 if self._pass == 0 else 0)
            place = row * _BUCKETS + (digit & (_BUCKETS - 1 if self._pass < 2 else _BUCKETS // 2 - 1))
            found = torch.bincount(place.flatten(), minlength=self._rows * _BUCKETS)
            self._add(number, found.view(self._rows, _BUCKETS))

    def end_pass(self) -> None:
        """Draw the conclusions of one pass over all values.

        Raises:
            ValueError: there was no value, or a later pass brought others than the first.
        """
        if self._pass == 0:
            self._begin()
        if self._seen != self.count:
            raise ValueError(f"pass {self._pass + 1} brought {self._seen} values per row, not {self.count}")
        for number, search in enumerate(self._searches):
            self._narrow(search, self._counts[number if self._pass else 0])
        self._counts, self._seen = [], 0
        self._pass += 1

    def result(self) -> Tensor:
        """Return the quantiles, float32 (fractions, rows), after three passes."""
        if self._pass != PASSES:
            raise ValueError(f"quantiles are known after {PASSES} passes over the values, not {self._pass}")
        keys = torch.stack([search.prefix for search in self._searches])
        return _bits(keys).view(torch.float32).cpu()

    def _begin(self) -> None:
        self.count = self._seen
        if not self.count:
            raise ValueError("there was not a single value")
        device = self._counts[0].device
        for fraction in self._fractions:
            rank = torch.full((self._rows,), round(fraction * (self.count - 1)), device=device)
            prefix = torch.zeros(self._rows, dtype=torch.int32, device=device)
            self._searches.append(_Search(prefix, rank, torch.full_like(rank, self.count)))

    def _candidates(self, keys: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Return by fraction the rows and keys of values that may be the quantile: in the first pass all."""
        rows = torch.arange(self._rows, device=keys.device)[:, None].expand_as(keys)
        if self._pass == 0:
            return [(0, rows, keys)]
        prefixes = keys >> _SHIFTS[self._pass - 1]
        chosen = [prefixes == search.prefix[:, None] for search in self._searches]
        return [(number, rows[among], keys[among]) for number, among in enumerate(chosen)]

    def _add(self, number: int, found: Tensor) -> None:
        if number == len(self._counts):
            self._counts.append(found)
        else:
            self._counts[number] += found

    def _narrow(self, search: _Search, counts: Tensor) -> None:
        """Go down to the bucket that holds the quantile."""
        if not torch.equal(counts.sum(1), search.expected):
            raise ValueError(f"pass {self._pass + 1} brought other values than the first one")
        upto = counts.cumsum(1)
        bucket = (upto <= search.rank[:, None]).sum(1)
        search.expected = counts.gather(1, bucket[:, None]).squeeze(1)
        search.rank = search.rank - (upto.gather(1, bucket[:, None]).squeeze(1) - search.expected)
        if self._pass == 0:
            search.prefix = (bucket - _BUCKETS // 2).int()
        else:
            search.prefix = (search.prefix << (_SHIFTS[self._pass - 1] - _SHIFTS[self._pass])) | bucket.int()


def _ordered(values: Tensor) -> Tensor:
    """Return float32 values as int32 of the same order."""
    return _bits(values.contiguous().view(torch.int32))


def _bits(keys: Tensor) -> Tensor:
    """Swap a float's bits and its key: negative numbers have their magnitude's bits turned round."""
    return keys ^ ((keys >> 31) & _MAGNITUDE)

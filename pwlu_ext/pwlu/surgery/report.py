"""What `replace_activations` did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One activation site.

    Attributes:
        name: qualified name of the module; for `F.relu` and its like the module whose forward calls it.
        kind: the class that was found there, `F.relu` etc. for a function, `x * sigmoid(x)` etc. for one that
            is written out.
        num_channels: channels of its input; None if it never ran or ran with several widths.
        spatial_size: shape of its input without batch and channels, (56, 56) for an image; the largest if
            it ran with several; None if it never ran.
        replaced: whether a new module is there now.
        reason: why it was left; for a replaced site a remark, mostly empty.
        starts_as: the starting function of the PWLU that is there now; "" where no new PWLU is.
    """

    name: str
    kind: str
    num_channels: int | None
    spatial_size: tuple[int, ...] | None
    replaced: bool
    reason: str
    starts_as: str = ""


@dataclass(frozen=True)
class ReplacementReport:
    """Every site, and the model's number of parameters before and after; `print` it for a table."""

    sites: tuple[Site, ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        rows = [("site", "was", "channels", "map", "starts as", "result"), *map(_row, self.sites)]
        sides = "<<>><<"
        if not any(site.starts_as for site in self.sites):
            rows, sides = [(*row[:4], row[5]) for row in rows], "<<>><"
        return "\n".join([*aligned(rows, sides), self.summary()])

    def summary(self) -> str:
        """Return the table's last line, e.g. `replaced 17 of 17 sites, +0.7 % parameters`."""
        replaced = sum(site.replaced for site in self.sites)
        added = self.parameters_after - self.parameters_before
        growth = f"{100 * added / self.parameters_before:+.1f} %" if self.parameters_before else f"{added:+d}"
        return f"replaced {replaced} of {len(self.sites)} sites, {growth} parameters"


def aligned(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    """Return the lines of a table; `sides` has < or > for every column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    places = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
    return ["  ".join(places).format(*row).rstrip() for row in rows]


def _row(site: Site) -> tuple[str, ...]:
    channels = "-" if site.num_channels is None else str(site.num_channels)
    spatial = "-" if site.spatial_size is None else "x".join(map(str, site.spatial_size)) or "1"
    result = "replaced" if site.replaced else "kept"
    result = f"{result}: {site.reason}" if site.reason else result
    return site.name, site.kind, channels, spatial, site.starts_as or "-", result

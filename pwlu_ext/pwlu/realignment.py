"""The realignment of the boundaries to the statistics of the input (Eq. 6)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .module import PWLU
from .sharding import whole

SIGMAS = 3.0  # the "3-sigma rule" of Eq. 6


def check_whole(sites: Mapping[str, PWLU]) -> None:
    """Raise ValueError for parameters that FSDP1 or ZeRO-3 has cut up."""
    for name, site in sites.items():
        shape = (site.num_parameters, site.num_intervals + 1)
        points = site._parameters.get("points")
        if points is None or points.shape != shape:
            found = "no parameters" if points is None else f"`points` of shape {tuple(points.shape)}"
            raise ValueError(
                f"PWLU '{name}' has {found}, but needs them whole: {shape}. FullyShardedDataParallel (FSDP1) "
                "and DeepSpeed's ZeRO-3 cut parameters up. Use DistributedDataParallel, or FSDP2: "
                "torch.distributed.fsdp.fully_shard."
            )


def is_at_start(site: PWLU, tolerance: float) -> bool:
    """Return whether a site is its starting function on its boundaries; `tolerance` is relative."""
    try:
        points, left_slope, right_slope = site.start_parameters(whole(site.left), whole(site.right))
    except ValueError:  # not finite on them, so they are not those of a start
        return False
    parts = (
        (site.points, points, points.abs().amax(1, keepdim=True)),
        (site.left_slope, left_slope, 1),
        (site.right_slope, right_slope, 1),
    )
    return all(bool(((whole(own) - start).abs() <= tolerance * scale).all()) for own, start, scale in parts)


def realign(sites: Mapping[str, PWLU]) -> None:
    """Make every site its starting function on boundaries that fit its running statistics (Eq. 6).

    Raises:
        ValueError: a starting function is not finite there; no site has changed.
    """
    boundaries = {name: _boundaries(site) for name, site in sites.items()}
    for name, site in sites.items():
        try:
            site.start_parameters(*boundaries[name])
        except ValueError as error:
            raise ValueError(f"PWLU '{name}' cannot be realigned (Eq. 6): {error}") from error
    for name, site in sites.items():
        site.reset_to_start(*boundaries[name])


def _boundaries(site: PWLU) -> tuple[Tensor, Tensor]:
    # A function whose input did not vary (a dead channel, a site without input) keeps its width, around the
    # mean.
    mean, std = site.running_mean, site.running_std
    varied = std > 1e-6 * mean.abs().clamp(min=1)
    half_width = torch.where(varied, SIGMAS * std, site.bound)
    return mean - half_width, mean + half_width

"""The running statistics of phase I (Eq. 5), over all ranks."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from .module import PWLU
from .processes import all_reduce

MOMENTUM = 0.1  # the weight of the newest step in Eq. 5


@torch.no_grad()
def take_step(sites: Sequence[PWLU], group: dist.ProcessGroup | None) -> Tensor:
    """Move the running statistics, in place, by what the sites collected in a step on all ranks; start anew.

    A site leaves the step out if an element, or the sum of squares, was not finite on some rank. Return for
    every site, bool, whether it left out this step or one before it that was skipped.
    """
    collected = [site.statistics for site in sites if site.statistics is not None]
    count, mean, std, dropped = _over_ranks(
        torch.cat([s.count.expand_as(s.mean) for s in collected]),
        torch.cat([s.mean for s in collected]),
        torch.cat([s.deviation for s in collected]),
        torch.cat([s.dropped.expand_as(s.mean) for s in collected]),
        group,
    )
    running = torch.stack(
        [torch.cat([s.running_mean for s in sites]), torch.cat([s.running_std for s in sites])]
    )
    new = torch.stack([mean, std])
    sizes = [site.num_parameters for site in sites]
    spoilt = (count > 0) & ~new.isfinite().all(0)
    left_out = torch.stack([functions.any() for functions in spoilt.split(sizes)])
    skipped = torch.stack([functions[0] > 0 for functions in dropped.split(sizes)])
    # Eq. 5. Without input nothing changes. The first input sets the statistics: a start from 0 would bias
    # short runs. What is not finite is of a checkpoint from before such steps were left out: as no input.
    running = torch.where(running.isfinite().all(0), running, 0)
    weight = torch.where((running == 0).all(0), 1.0, MOMENTUM)
    moved = torch.where(count > 0, running + weight * (new - running), running)
    parts = zip(sites, left_out, running.split(sizes, 1), moved.split(sizes, 1), strict=True)
    for site, stays, before, after in parts:
        site_mean, site_std = torch.where(stays, before, after)
        site.running_mean.copy_(site_mean)
        site.running_std.copy_(site_std)
    for statistics in collected:
        statistics.clear()
    return left_out | skipped


def _over_ranks(
    count: Tensor, mean: Tensor, deviation: Tensor, dropped: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return count, mean and (biased) standard deviation of all ranks' elements, and the sum of `dropped`.

    Mean and deviation are NaN where there are no elements.
    """
    # Two reductions, the second one of deviations around the common mean: squares would cancel.
    total, sum_of_x, dropped = all_reduce(torch.stack([count, count * mean, dropped]), group=group)
    common_mean = sum_of_x / total
    squares = torch.where(count > 0, deviation + count * (mean - common_mean) ** 2, 0)
    return total, common_mean, (all_reduce(squares, group=group) / total).sqrt(), dropped

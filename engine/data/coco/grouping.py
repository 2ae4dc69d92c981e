"""Pairs of images of one orientation: a batch is padded to the largest height and width in it."""

import torch

from engine.data.sampler import isolated_rng, mix_seed

# The recipe's images per GPU (section 4.2: 16 on 8 GPUs).
GROUP_SIZE = 2


def grouped_length(num_images: int) -> int:
    """Return how many images `grouped_order` gives: all, or all but one."""
    return num_images // GROUP_SIZE * GROUP_SIZE


def grouped_order(aspect_ratios: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Return the epoch's order of images, int64 (grouped_length,), each image at most once.

    Each two in a row, from an even place on, are both wider than high (width / height > 1) or both not; if
    one of either kind is left over they form a pair too, so that also the only high image of a small data set
    is trained on. Pairs and their order are random; of an odd number of images one, another in every epoch,
    is left out. The order depends on the arguments alone.
    """
    with isolated_rng(mix_seed(seed, epoch)):
        order = torch.randperm(len(aspect_ratios))
        wide = aspect_ratios[order] > 1
        kinds = [order[wide], order[~wide]]
        lengths = [grouped_length(len(kind)) for kind in kinds]
        left_over = [kind[length:] for kind, length in zip(kinds, lengths, strict=True)]
        whole = [kind[:length] for kind, length in zip(kinds, lengths, strict=True)]
        flat = torch.cat([*whole, *left_over])[: grouped_length(len(aspect_ratios))]
        groups = flat.view(-1, GROUP_SIZE)
        return groups[torch.randperm(len(groups))].flatten()

"""Exact evaluation of a classifier on any number of processes."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import nn

from engine.amp import Precision
from engine.processes.distributed import World

Batch = tuple[torch.Tensor, torch.Tensor]


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    world: World,
    precision: Precision,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return `top1` and `top5` (percent), the mean cross entropy `loss` and the number of `images`.

    Sums and counts, not means, are added up over the processes, so each image weighs the same however the
    images are shared out. With fewer than five classes `top5` is 100. Every process gets the same result; all
    must call.

    Args:
        model: the bare model, not wrapped for DDP, since processes may have different numbers of batches.
        batches: this process's share, (images float32 (n, 3, h, w), labels int64 (n,)); each image on one
        process only.
        should_stop: asked before every batch; if true on any process, all get None instead of a result.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=world.device)
    stopped = False
    for images, labels in batches:
        if should_stop():
            stopped = True
            break
        labels = labels.to(world.device, non_blocking=True)
        with precision.autocast():
            logits = model(images.to(world.device, non_blocking=True))
        totals += _sums(logits.float(), labels)
    model.train(was_training)
    loss, top1, top5, count, stops = world.sum([*totals.tolist(), float(stopped)])
    if stops:
        return None
    if not count:
        raise ValueError("evaluation: there is not a single image to evaluate on")
    return {
        "top1": 100 * top1 / count,
        "top5": 100 * top5 / count,
        "loss": loss / count,
        "images": int(count),
    }


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (summed cross entropy, hits at the first place, hits in the first five, images) in float64."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    return torch.stack(
        [loss, hits[:, 0].sum(), hits.sum(), torch.tensor(len(labels), device=logits.device)]
    ).double()

"""One rank of test_fused_distributed.py: trains a fused network on its share of every batch.

Arguments: the folder to meet and to save in, this rank, the number of ranks. One alone takes full batches,
and its BatchNorms are torch's, apart from the PWLUs.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pwlu import fuse_batch_norm
from pwlu_ext.tests.fused_networks import SIZE, block, images
from pwlu_ext.tests.helpers import bent_module

STEPS, BATCH = 6, 7
WAYS = ["ddp", "fsdp2"]


class NormOfAll(nn.BatchNorm2d):
    """Over all processes where it is fused. (DDP and torch take nn.SyncBatchNorm on GPUs only.)"""

    process_group = None


def share(step: int, rank: int, world_size: int) -> Tensor:
    """Unequal shares; in steps 1 and 4 the last rank gets nothing."""
    batch = images(step, BATCH)
    if world_size == 1:
        return batch
    cut = BATCH if step in (1, 4) else 3
    return batch[:cut] if rank == 0 else batch[cut:]


def parallel(way: str, model: nn.Module) -> nn.Module:
    if way == "alone":
        return model
    fuse_batch_norm(model, input_size=SIZE, is_batch_norm=lambda m: isinstance(m, NormOfAll))
    # The BatchNorms themselves keep the ranks' statistics alike.
    return fully_shard(model) if way == "fsdp2" else DistributedDataParallel(model, broadcast_buffers=False)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train(way: str, rank: int, world_size: int, norm: type[nn.Module]) -> dict[str, Tensor]:
    model = block(norm)
    trained = parallel(way, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        # Gradients are averaged over the ranks, the loss is over the batch.
        (trained(share(step, rank, world_size)).square().sum() * world_size / BATCH).backward()
        optimizer.step()
    return {name: whole(value) for name, value in model.state_dict().items()}


def fused_norm(momentum: float | None) -> nn.Sequential:
    model = nn.Sequential(NormOfAll(3, momentum=momentum), bent_module(3)).double()
    fuse_batch_norm(model, input_size=SIZE, is_batch_norm=lambda m: isinstance(m, NormOfAll))
    return model


def after_one_element(rank: int) -> dict[str, Tensor]:
    """The buffers after a batch with a single element per channel, infinite in one, and a whole one."""
    model = fused_norm(momentum=None)
    element = torch.tensor([1.0, torch.inf, -1.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    model(element if rank == 0 else element[:0])
    model(share(0, rank, 2))
    return dict(model.named_buffers())


def with_a_hook_on_one_rank(rank: int) -> Tensor:
    """What a sum over the ranks gives after a step in which one computes BatchNorm and PWLU apart."""
    model = fused_norm(momentum=0.1)
    if rank == 0:
        model[0].register_forward_hook(lambda *_: None)
    model(share(0, rank, 2)).sum().backward()
    ones = torch.ones(3)
    dist.all_reduce(ones)
    return ones


def main() -> None:
    folder, rank, world_size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if world_size == 1:
        results = {"alone": train("alone", 0, 1, nn.BatchNorm2d)}
    else:
        dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world_size)
        results: dict[str, Any] = {way: train(way, rank, world_size, NormOfAll) for way in WAYS}
        results["after one element"] = after_one_element(rank)
        results["with a hook"] = with_a_hook_on_one_rank(rank)
        dist.destroy_process_group()
    torch.save(results, folder / f"{rank}_of_{world_size}.pt")


if __name__ == "__main__":
    main()

"""What a rank of ddp_worker.py calibrates: networks on shares of unequal numbers of batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from pwlu import PWLU, calibrate
from pwlu.sharding import whole

SIZES = (4, 1, 3, 2)  # of all batches; the first rank has all but the last of them


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), PWLU(4, 6, init="silu")
    return nn.Sequential(*first, nn.Conv2d(4, 2, 3), PWLU(1, 8, init="gelu"))


def batches(rank: int, world_size: int, equal: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    found = [torch.randn(n, 1, 6, 6, generator=generator) * (i + 1) for i, n in enumerate(SIZES)]
    if world_size == 1:
        return found
    cut = 2 if equal else 3
    return found[:cut] if rank == 0 else found[cut:]


def sharded(model: nn.Module) -> nn.Module:
    """After a forward, as of an evaluation, which leaves the parameters of the root whole."""
    fully_shard(model)
    with torch.no_grad():
        model.eval()(torch.zeros(2, 1, 6, 6))
    return model.train()


def outcome(wrap: Callable[[nn.Module], nn.Module], shares: list[Tensor]) -> dict[str, Any]:
    plain = network()
    report = calibrate(wrap(plain), shares)
    state = {name: whole(value).clone() for name, value in plain.state_dict().items()}
    numbers = [[*site.left, *site.right, site.gap] for site in report.sites]
    return state | {"change": report.largest_change, "batches": report.num_batches, "sites": numbers}


def said(shares: list[Any]) -> str:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        calibrate(model, shares)
    except (ValueError, RuntimeError) as error:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        return f"{type(error).__name__}: {error}"
    return ""


def calibrations(rank: int, world_size: int) -> dict[str, Any]:
    shares = batches(rank, world_size)
    if world_size == 1:
        return {"alone": outcome(nn.Sequential, shares)}
    spoilt = [torch.full_like(x, torch.nan) for x in shares] if rank == 1 else shares
    return {
        "ddp": outcome(DistributedDataParallel, shares),
        "fsdp2": outcome(sharded, batches(rank, world_size, equal=True)),
        "one rank has none": outcome(nn.Sequential, batches(0, 1) if rank else []),
        "no rank has any": said([]),
        "one rank fails": said(shares if rank else [None]),
        "one rank is not finite": said(spoilt),
    }

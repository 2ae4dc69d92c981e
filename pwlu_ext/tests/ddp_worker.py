"""One rank of test_distributed.py: trains through both phases on its share of every batch, saves the result.

Arguments: the folder to meet and to save in, this rank, the number of ranks. One alone takes full batches.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pwlu import PWLU, TwoPhaseLearning

PHASE_1_STEPS, STEPS, BATCH = 4, 7, 8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), PWLU(4, 6), nn.Conv2d(4, 2, 3), PWLU(1, 8), nn.Flatten(), nn.Linear(8, 3)
    )


def share(step: int, rank: int, world_size: int) -> Tensor:
    """Unequal shares, whose distributions differ; in steps 1 and 5 the last rank gets nothing."""
    generator = torch.Generator().manual_seed(step)
    batch = torch.randn(BATCH, 1, 6, 6, generator=generator) * torch.linspace(0.5, 3, BATCH).view(-1, 1, 1, 1)
    if world_size == 1:
        return batch
    cut = BATCH if step in (1, 5) else 3
    return batch[:cut] if rank == 0 else batch[cut:]


def train(model: nn.Module, plain: nn.Module, rank: int, world_size: int) -> dict[str, Tensor | int]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    # Two ranks by the optimizer's hooks, one alone by explicit calls: they have to agree.
    hooks = world_size > 1
    phases = TwoPhaseLearning(plain, PHASE_1_STEPS, optimizer=optimizer if hooks else None)
    own = [p for module in plain if isinstance(module, PWLU) for p in module.parameters()]
    start = [p.detach().clone() for p in own]
    realigned = -1
    for step in range(STEPS):
        x = share(step, rank, world_size)
        half = (len(x) + 1) // 2  # gradient accumulation
        optimizer.zero_grad()
        for part in (x[:half], x[half:]):
            error = model(part) - part[:, 0, 0, :3]
            # DistributedDataParallel averages over ranks: this makes it the mean over the whole batch
            (error.square().sum() * world_size / (3 * BATCH)).backward()
        before = phases.phase
        if not hooks:
            phases.before_optimizer_step()
        optimizer.step()
        if not hooks:
            phases.after_optimizer_step()
        if (before, phases.phase) == (1, 2):
            realigned = step
        elif phases.phase == 1:
            assert all(torch.equal(p, s) for p, s in zip(own, start, strict=True))
            assert not any(p in optimizer.state for p in own)
    return {**plain.state_dict(), "realigned": realigned}


def main(folder: Path, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    plain = network()
    model: nn.Module = plain
    if world_size > 1:
        store = (folder / "store").as_uri()
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
        model = DistributedDataParallel(plain)
    result = train(model, plain, rank, world_size)
    torch.save(result, folder / f"{rank}_of_{world_size}.pt")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

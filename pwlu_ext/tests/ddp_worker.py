"""One rank of test_distributed.py: trains through both phases on its share of every batch, saves the results.

Arguments: the folder to meet and to save in, this rank, the number of ranks. One alone takes full batches.
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pwlu import PWLU, TwoPhaseLearning
from pwlu_ext.tests.calibration_ranks import calibrations

PHASE_1_STEPS, STEPS, BATCH = 4, 7, 8
SPOILT_STEP = 2  # the last rank's first forward pass gives the first PWLU what is not finite
WAYS = ["ddp", "fsdp2", "fsdp2 by parts, later", "fsdp2 in bfloat16"]


class Spoiling(nn.Module):
    """Identity, but for an infinity of which ReLU makes a zero."""

    active = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        infinity = torch.zeros_like(x)
        infinity[-1, 0, 0, 0] = -torch.inf
        return x + infinity


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)
    last = PWLU(1, 8, init="silu")
    return nn.Sequential(first, Spoiling(), PWLU(4, 6), second, last, nn.Flatten(), nn.Linear(8, 3))


def share(step: int, rank: int, world_size: int) -> Tensor:
    """Unequal shares, whose distributions differ; in steps 1 and 5 the last rank gets nothing."""
    generator = torch.Generator().manual_seed(step)
    batch = torch.randn(BATCH, 1, 6, 6, generator=generator) * torch.linspace(0.5, 3, BATCH).view(-1, 1, 1, 1)
    if world_size == 1:
        return batch
    cut = BATCH if step in (1, 5) else 3
    return batch[:cut] if rank == 0 else batch[cut:]


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.detach().clone()


def parallel(way: str, model: nn.Sequential) -> nn.Module:
    if way == "alone":
        return model
    if way == "ddp":
        return DistributedDataParallel(model)
    functions = [module for module in model if isinstance(module, PWLU)]
    if "parts" in way:
        for module in (model[0], *functions):
            fully_shard(module)
    if "bfloat16" not in way:
        return fully_shard(model)
    fully_shard(functions)
    return fully_shard(model, mp_policy=MixedPrecisionPolicy(torch.bfloat16, output_dtype=torch.float32))


def train(way: str, rank: int, world_size: int) -> dict[str, Any]:
    plain = network()
    # The calls of the optimizer's hooks and explicit ones have to agree.
    explicit = way == "alone" or "later" in way
    phases = TwoPhaseLearning(plain, PHASE_1_STEPS) if explicit else None
    model = parallel(way, plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    phases = phases or TwoPhaseLearning(plain, PHASE_1_STEPS, optimizer=optimizer)
    own = [p for module in plain if isinstance(module, PWLU) for p in module.parameters()]
    start = [whole(p) for p in own]
    realigned = -1
    for step in range(STEPS):
        x = share(step, rank, world_size)
        half = (len(x) + 1) // 2  # gradient accumulation
        optimizer.zero_grad()
        for is_second, part in enumerate((x[:half], x[half:])):
            plain[1].active = step == SPOILT_STEP and rank == world_size - 1 and not is_second
            error = model(part) - part[:, 0, 0, :3]
            # Gradients are averaged over ranks: this makes it the mean over the whole batch.
            (error.square().sum() * world_size / (3 * BATCH)).backward()
        before = phases.phase
        if explicit:
            phases.before_optimizer_step()
        optimizer.step()
        if explicit:
            phases.after_optimizer_step()
        if (before, phases.phase) == (1, 2):
            realigned = step
        elif phases.phase == 1:
            assert all(torch.equal(whole(p), s) for p, s in zip(own, start, strict=True))
            assert not any(p in optimizer.state for p in own)
    state = {name: whole(value) for name, value in plain.state_dict().items()}
    return state | {"realigned": realigned, "gap": plain[4].start_gap().detach()}


def warnings_of(function: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what it returns, and its warnings about PWLUs."""
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
        result = function()
    return result, [str(w.message) for w in caught if "PWLU" in str(w.message)]


def leave_functions_whole() -> None:
    """Take a step with functions that FSDP2 was told to ignore."""
    model = network()
    ignored = {p for module in model if isinstance(module, PWLU) for p in module.parameters()}
    fully_shard(model, ignored_params=ignored)
    phases = TwoPhaseLearning(model, 2)
    model(torch.randn(2, 1, 6, 6)).sum().backward()
    phases.after_optimizer_step()


def made_without_storage() -> dict[str, Tensor]:
    """Return the state of a network that was sharded on the meta device and reset."""
    with torch.device("meta"):
        model = network()
    fully_shard(model)
    model.to_empty(device="cpu")
    for module in model:
        if isinstance(module, PWLU):
            module.reset_parameters()
    return {name: whole(value) for name, value in model.state_dict().items()}


def begun_after_an_evaluation() -> dict[str, Tensor]:
    """Return the state of a network that had learned, was evaluated, and then begins phase I anew."""
    model = network()
    with torch.no_grad():
        for module in model:
            if isinstance(module, PWLU):
                module.points += 1
        fully_shard(model).eval()(torch.zeros(2, 1, 6, 6))
    TwoPhaseLearning(model.train(), 1)
    return {name: whole(value) for name, value in model.state_dict().items()}


def leave_a_part_in_eval_mode() -> None:
    """Take steps of phase I under DistributedDataParallel, which waits for every parameter's gradient."""
    model = network()
    parallel = DistributedDataParallel(model)
    phases = TwoPhaseLearning(model, 3)
    model[4].eval()
    for step in range(2):
        parallel(share(step, 0, 1)).sum().backward()
        phases.before_optimizer_step()
        phases.after_optimizer_step()


def refusals() -> list[str]:
    """Return what is said where torch's first FullyShardedDataParallel has cut the parameters up."""
    said = []
    for later in (False, True):
        for use_orig_params in (False, True):
            plain = network()
            try:
                phases = TwoPhaseLearning(plain, 1) if later else None
                options = {"use_orig_params": use_orig_params, "device_id": torch.device("cpu")}
                model = FullyShardedDataParallel(plain, **options)
                phases = phases or TwoPhaseLearning(model, 1)
                model(torch.randn(2, 1, 6, 6)).sum().backward()
                phases.after_optimizer_step()
            except ValueError as error:
                said.append(str(error))
    return said


def main(folder: Path, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        store = (folder / "store").as_uri()
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    results: dict[str, Any] = {}
    for way in WAYS if world_size > 1 else ["alone"]:
        results[way], warned = warnings_of(partial(train, way, rank, world_size))
        results[way]["warned"] = warned
    if world_size > 1:
        results |= {"meta": made_without_storage(), "refusals": refusals()}
        results["evaluated"] = begun_after_an_evaluation()
        leave_a_part_in_eval_mode()
        results["ignored"] = warnings_of(leave_functions_whole)[1]
    results["calibrated"] = calibrations(rank, world_size)
    torch.save(results, folder / f"{rank}_of_{world_size}.pt")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

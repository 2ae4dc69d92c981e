from pathlib import Path
from typing import Any

import torch
from pytest import mark, raises
from torch import Tensor, nn

from engine.processes.distributed import World
from models.frelu import FReLU
from models.sync_batch_norm import SafeSyncBatchNorm, SyncBatchNorm2d, synchronize_batch_norm
from tests.training_runs import run_function

CPU = torch.device("cpu")
CHANNELS = 3
# How many images each of two processes has; their sizes differ too.
SHARES = [(3, 1), (4, 0), (0, 2), (0, 0), (1, 0)]
MOMENTA = [0.1, 0.1, None, 0.1, 0.1]  # for each of these


def part(rank: int, share: tuple[int, ...], seed: int = 0) -> Tensor:
    """One process's images, far from a mean of 0: (n, C, 2, 3) on the first, (n, C, 4, 1) on the second."""
    generator = torch.Generator().manual_seed(10 * seed + rank)
    height, width = ((2, 3), (4, 1))[rank] if sum(share) > 1 else (1, 1)
    return 100 + torch.randn(share[rank], CHANNELS, height, width, generator=generator)


def norm_with_weights(
    kind: type[nn.BatchNorm2d] = nn.BatchNorm2d, momentum: float | None = 0.1
) -> nn.BatchNorm2d:
    norm = kind(CHANNELS, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    return norm


def run(norm: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradients of a loss that treats every element differently, and statistics."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * (x.detach() - 100).cos()).sum().backward()
    return {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad} | {
        name: buffer.clone() for name, buffer in norm.named_buffers()
    }


def in_process(world: World) -> list[dict[str, Tensor]]:
    return [
        run(norm_with_weights(SyncBatchNorm2d, momentum), part(world.rank, share))
        for share, momentum in zip(SHARES, MOMENTA, strict=True)
    ]


def flat(x: Tensor) -> Tensor:
    """(N, C, H, W) to (1, C, 1, N H W)."""
    return x.transpose(0, 1).reshape(1, CHANNELS, 1, -1)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=3e-4, atol=1e-4)


def test_two_processes_normalise_as_one_with_all_elements(tmp_path: Path) -> None:
    first, second = run_function(in_process, processes=2, folder=tmp_path)
    for share, momentum, one, other in zip(SHARES, MOMENTA, first, second, strict=True):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(one[name], other[name]), (share, name)
        if sum(share) < 2:  # there is no variance
            for result in (one, other):
                assert result["running_mean"].eq(0).all() and result["running_var"].eq(1).all()
                assert result["num_batches_tracked"] == 0
            continue
        together = torch.cat([flat(part(rank, share)) for rank in (0, 1)], dim=3)
        whole = run(norm_with_weights(momentum=momentum).double(), together.double())
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            close(one[name], whole[name])
        for name in ("weight", "bias"):
            close(one[name] + other[name], whole[name])
        for name in ("y", "x"):
            close(torch.cat([flat(one[name]), flat(other[name])], dim=3), whole[name])
    single = first[SHARES.index((1, 0))]
    close(single["y"].flatten(), norm_with_weights().bias.detach())
    assert single["x"].eq(0).all()


@mark.parametrize("training", [True, False])
@mark.parametrize("kind", [SyncBatchNorm2d, SafeSyncBatchNorm])
def test_alone_it_is_batch_norm(kind: type[Any], training: bool) -> None:
    x = part(0, (4, 0))
    expected = run(norm_with_weights().train(training), x)
    for name, tensor in run(norm_with_weights(kind).train(training), x).items():
        assert torch.equal(tensor, expected[name]), name


@mark.parametrize("training", [True, False])
@mark.parametrize("affine", [True, False])
@mark.parametrize("kind", [SyncBatchNorm2d, SafeSyncBatchNorm])
def test_alone_it_takes_inputs_without_elements(kind: type[Any], affine: bool, training: bool) -> None:
    norm = kind(CHANNELS, affine=affine).train(training)
    x = torch.zeros(0, CHANNELS, 7, 7, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert y.shape == x.shape and x.grad is not None
    assert all(parameter.grad.eq(0).all() for parameter in norm.parameters())
    assert norm.running_mean.eq(0).all() and norm.running_var.eq(1).all()


def test_alone_a_single_element_has_no_variance() -> None:
    norm = norm_with_weights(SyncBatchNorm2d)
    result = run(norm, part(0, (1, 0)))
    close(result["y"].flatten(), norm.bias.detach())
    assert result["running_mean"].eq(0).all() and result["running_var"].eq(1).all()


def synced_in_bfloat16(world: World) -> Tensor:
    return norm_with_weights(SyncBatchNorm2d)(part(world.rank, (3, 1)).bfloat16()).detach()


def test_lower_precision_is_normalised_in_float32(tmp_path: Path) -> None:
    """In bfloat16 itself a mean of 100 would be off by half a standard deviation."""
    outputs = run_function(synced_in_bfloat16, processes=2, folder=tmp_path)
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    x = torch.cat([flat(part(rank, (3, 1)).bfloat16().float()) for rank in (0, 1)], dim=3)
    expected = norm_with_weights()(x).detach()
    torch.testing.assert_close(
        torch.cat([flat(o) for o in outputs], 3).float(), expected, rtol=0.01, atol=0.01
    )


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2))
        self.act = FReLU(4)
        self.plain = nn.BatchNorm2d(4, affine=False)


@mark.parametrize(("device", "kind"), [("cpu", SyncBatchNorm2d), ("cuda", SafeSyncBatchNorm)])
def test_every_batch_norm_is_synchronised_in_place(device: str, kind: type[nn.Module]) -> None:
    model = Network()
    model.act.eval()
    parameters, names = list(model.parameters()), list(model.state_dict())
    buffers = list(model.buffers())
    assert synchronize_batch_norm(model, torch.device(device)) is model
    assert [type(norm) for norm in (model.stem[1], model.act.norm, model.plain)] == [kind] * 3
    assert (model.stem[1].eps, model.stem[1].momentum) == (1e-3, 0.2)
    assert model.stem[1].training and not model.act.norm.training
    assert list(model.state_dict()) == names
    for now, before in zip((*model.parameters(), *model.buffers()), (*parameters, *buffers), strict=True):
        assert now is before
    norm = model.plain
    assert synchronize_batch_norm(model, torch.device(device)).plain is norm
    assert type(synchronize_batch_norm(nn.BatchNorm2d(2), torch.device(device))) is kind


@mark.parametrize("norm", [nn.BatchNorm1d(2), type("BatchNormAct2d", (nn.BatchNorm2d,), {})(2)])
def test_what_cannot_be_synchronised_is_named(norm: nn.Module) -> None:
    with raises(ValueError, match=f"the model has a {type(norm).__name__}, .* expected nn.BatchNorm2d"):
        synchronize_batch_norm(nn.Sequential(norm), CPU)


def on_gpu(world: World) -> list[dict[str, Tensor]]:
    results = []
    for share, momentum in zip(SHARES, MOMENTA, strict=True):
        norm = norm_with_weights(SafeSyncBatchNorm, momentum).cuda()
        results.append(
            {name: tensor.cpu() for name, tensor in run(norm, part(world.rank, share).cuda()).items()}
        )
    return results


@mark.gpu
@mark.skipif(not torch.cuda.is_available(), reason="no usable CUDA device")
def test_two_processes_on_a_gpu_normalise_as_on_cpus(tmp_path: Path) -> None:
    on_cpus = run_function(in_process, processes=2, folder=tmp_path / "cpu")
    for gpu, cpu in zip(run_function(on_gpu, processes=2, folder=tmp_path / "gpu"), on_cpus, strict=True):
        for share, result, expected in zip(SHARES, gpu, cpu, strict=True):
            for name in result:
                torch.testing.assert_close(result[name], expected[name], rtol=1e-3, atol=1e-3, msg=str(share))

"""Phase I in detectors: shared heads, levels of different size, images without objects, several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.processes.distributed import World
from models.detection import ARCHITECTURES
from pwlu import PWLU, TwoPhaseLearning
from tests.models.detection import tiny
from tests.training_runs import run_function

SHARED = {"mask_rcnn": "model.rpn.head.conv.0.1", "retinanet": "model.head.classification.blocks.1.act"}
# A site of the trunk, one that all levels share, and one that only regions with an object reach.
SITES = {
    "mask_rcnn": (
        "model.backbone.trunk.stages.layer4.1.act2",
        SHARED["mask_rcnn"],
        "model.roi_heads.mask_head.2.2",
    ),
    "retinanet": ("model.backbone.trunk.stages.act1", SHARED["retinanet"]),
}


def pwlus(model: nn.Module) -> dict[str, PWLU]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PWLU)}


def record_inputs(model: nn.Module, name: str) -> list[Tensor]:
    """Return the list that the inputs of a site will be put into, each (N, C, H, W)."""
    inputs: list[Tensor] = []
    model.get_submodule(name).register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].detach().clone())
    )
    return inputs


def moments(inputs: list[Tensor]) -> Tensor:
    """Count, sum and sum of squares per channel of all elements, float64 (3, C)."""
    elements = torch.cat([x.double().transpose(0, 1).flatten(1) for x in inputs], dim=1)
    count = torch.full((len(elements),), elements.shape[1], dtype=torch.float64)
    return torch.stack([count, elements.sum(1), elements.square().sum(1)])


def boundaries(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean -+ 3 standard deviations (Eq. 6)."""
    count, total, squares = moments
    mean = total / count
    std = (squares / count - mean**2).sqrt()
    return (mean - 3 * std).float(), (mean + 3 * std).float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shared_head_has_the_statistics_of_all_levels_together(architecture: str) -> None:
    """Its module is called five times per image batch; no level counts more than its elements do."""
    model = tiny.detector(architecture)
    phases = TwoPhaseLearning(model, 1)
    inputs = record_inputs(model, SHARED[architecture])
    for counts in ((2, 1), (0, 3)):  # gradient accumulation
        tiny.total(model(*tiny.batch(*counts))).backward()
    assert len(inputs) == 10 and len({x.shape for x in inputs}) == 5
    phases.before_optimizer_step()
    assert phases.after_optimizer_step()
    left, right = boundaries(moments(inputs))
    site = pwlus(model)[SHARED[architecture]]
    torch.testing.assert_close(site.left.detach(), left, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(site.right.detach(), right, rtol=1e-3, atol=1e-5)


def test_steps_without_regions_do_not_poison_the_statistics() -> None:
    """The mask head gets an empty tensor in the first step, regions in the second, nothing in the third."""
    model = tiny.detector("mask_rcnn")
    phases = TwoPhaseLearning(model, 3)
    name = SITES["mask_rcnn"][2]
    inputs = record_inputs(model, name)
    site = pwlus(model)[name]
    for counts in ((0, 0), (3, 2), (0, 0)):
        tiny.total(model(*tiny.batch(*counts))).backward()
        phases.before_optimizer_step()
        assert phases.after_optimizer_step() == (phases.step_count == 3)
    assert [len(x) > 0 for x in inputs] == [False, True, False]
    left, right = boundaries(moments(inputs))
    torch.testing.assert_close(site.left.detach(), left, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(site.right.detach(), right, rtol=1e-3, atol=1e-5)
    assert all(p.isfinite().all() for p in model.parameters())
    tiny.total(model(*tiny.batch(1, 0))).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_head_that_never_saw_a_region_keeps_its_boundaries() -> None:
    model = tiny.detector("mask_rcnn")
    phases = TwoPhaseLearning(model, 1)
    tiny.total(model(*tiny.batch(0))).backward()
    with pytest.warns(UserWarning, match="'model.roi_heads.mask_head.0.2'.*no input"):
        assert phases.after_optimizer_step()
    site = pwlus(model)[SITES["mask_rcnn"][2]]
    assert site.left.eq(-3).all() and site.right.eq(3).all()


def realign(world: World, architecture: str, counts: tuple[int, ...]) -> dict[str, Any]:
    """One step of phase I on this process's share of the images; parameters, and what the sites received."""
    model = tiny.detector(architecture, loss_normalizer_momentum=0.0)
    phases = TwoPhaseLearning(model, 1)
    parallel = world.parallel(model)
    inputs = {name: record_inputs(model, name) for name in SITES[architecture]}
    images, targets = tiny.batch(*counts)
    share = slice(world.rank, None, world.size)
    losses = parallel(images[share], targets[share])
    tiny.total(losses).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    phases.before_optimizer_step()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert phases.after_optimizer_step()
    return {
        "state": {name: tensor.detach() for name, tensor in model.state_dict().items()},
        "moments": {name: moments(found) for name, found in inputs.items()},
        "gradients": gradients,
        "losses": {name: loss.item() for name, loss in losses.items()},
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_processes_realign_alike_also_where_one_has_no_object(architecture: str, tmp_path: Path) -> None:
    answers = run_function(realign, architecture, (3, 0), processes=2, folder=tmp_path)
    assert [answer["processes"] for answer in answers] == [2, 2]
    first, second = (answer["state"] for answer in answers)
    assert all(torch.equal(first[name], second[name]) for name in first)
    if architecture == "mask_rcnn":
        assert answers[1]["moments"][SITES[architecture][2]][0, 0] == 0  # no region on the second process
    for name in SITES[architecture]:
        left, right = boundaries(sum(answer["moments"][name] for answer in answers))
        torch.testing.assert_close(first[f"{name}.left"], left, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(first[f"{name}.right"], right, rtol=1e-3, atol=1e-5)


def test_two_processes_of_one_image_train_as_one_with_two(tmp_path: Path) -> None:
    """RetinaNet draws no samples, so losses, gradients and running statistics are comparable."""
    alone = realign(World(), "retinanet", (3, 2))
    ranks = run_function(realign, "retinanet", (3, 2), processes=2, folder=tmp_path)
    for name, loss in alone["losses"].items():
        assert sum(rank["losses"][name] for rank in ranks) / 2 == pytest.approx(loss, rel=1e-4)
    for rank in ranks:
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(rank["gradients"][name], gradient, rtol=2e-3, atol=2e-6, msg=name)
        for name, tensor in alone["state"].items():
            if "running" in name or name.endswith((".left", ".right", "num_batches_tracked")):
                torch.testing.assert_close(rank["state"][name], tensor, rtol=2e-3, atol=1e-5, msg=name)

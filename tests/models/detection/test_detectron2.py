"""The library detectron2 has the interface of both libraries, and what our training loop needs of it."""

import copy
from pathlib import Path
from typing import Any

import torch
from pytest import approx, importorskip, mark
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.processes.distributed import World
from models.detection import ARCHITECTURES, DetectorRecipe
from models.sync_batch_norm import SyncBatchNorm2d, synchronize_batch_norm
from pwlu import TwoPhaseLearning
from tests.models.detection import tiny
from tests.models.detection.two_libraries import IMAGE_SIZES, detector, images, settled, targets
from tests.training_runs import run_function

importorskip("detectron2", reason="detectron2 is not installed")

both_architectures = mark.parametrize("architecture", ARCHITECTURES)


@both_architectures
@mark.parametrize("activation", ["relu", "swish", "frelu", "pwlu"])
def test_losses_are_finite_and_reach_every_parameter(architecture: str, activation: str) -> None:
    model = detector(architecture, activation)
    for empty in (False, True):
        model.zero_grad()
        losses = model(images(), targets(empty=empty))
        assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
        tiny.total(losses).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    absent = "loss_mask" if architecture == "mask_rcnn" else "loss_box_reg"
    assert losses[absent] == 0  # there was nothing to cut out


@both_architectures
def test_detections_are_in_the_original_image(architecture: str) -> None:
    model = settled(detector(architecture))
    with torch.no_grad():
        own = model(images())
        original = model(images(), original_sizes=[(2 * h, 3 * w) for h, w in IMAGE_SIZES])
    for found, scaled, (height, width) in zip(own, original, IMAGE_SIZES, strict=True):
        count = len(found["scores"])
        assert 0 < count <= DetectorRecipe.detections
        assert found["scores"].dtype == torch.float32 and found["labels"].dtype == torch.int64
        assert (found["scores"].diff() <= 0).all() and found["scores"].min() > 0.01
        assert set(found["labels"].tolist()) <= set(range(tiny.NUM_CLASSES))
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= torch.tensor([width, height] * 2)).all()
        torch.testing.assert_close(scaled["boxes"], found["boxes"] * torch.tensor([3.0, 2.0, 3.0, 2.0]))
        assert ("masks" in found) == (architecture == "mask_rcnn")
        if "masks" in found:
            assert found["masks"].shape == (count, height, width)
            assert scaled["masks"].shape == (count, 2 * height, 3 * width)
            assert scaled["masks"].dtype in (torch.bool, torch.uint8)
            outside = scaled["masks"].bool() & ~inside(scaled["boxes"], 2 * height, 3 * width)
            assert not outside.any() and scaled["masks"].any()


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return for each box the pixels that it touches or that are next to it, (n, height, width)."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    columns, rows = torch.arange(width), torch.arange(height)
    in_x = (columns >= x1 - 2) & (columns <= x2 + 1)
    in_y = (rows >= y1 - 2) & (rows <= y2 + 1)
    return in_y[:, :, None] & in_x[:, None, :]


@both_architectures
def test_lower_precision_stays_inside(architecture: str) -> None:
    model = detector(architecture)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images(), targets())
        with torch.no_grad():
            detections = settled(model)(images())
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    for found in detections:
        assert found["scores"].dtype == found["boxes"].dtype == torch.float32
        assert not torch.equal(found["scores"], found["scores"].bfloat16().float())


@both_architectures
def test_an_image_without_detections_has_empty_ones(architecture: str) -> None:
    model = detector(architecture, score_threshold=0.999)
    with torch.no_grad():
        (found,) = model.eval()(images()[:1], original_sizes=[(50, 40)])
    assert found["boxes"].shape == (0, 4) and len(found["scores"]) == len(found["labels"]) == 0
    assert "masks" not in found or found["masks"].shape == (0, 50, 40)


@both_architectures
def test_nothing_is_frozen_and_every_norm_is_synchronised(architecture: str) -> None:
    from detectron2.layers import FrozenBatchNorm2d

    model = detector(architecture)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    assert all(isinstance(model.get_submodule(name), SyncBatchNorm2d) for name in norms)
    # in each convolution of the pyramid and the heads, five per convolution of a subnet, none in the RPN
    expected = {"mask_rcnn": 2 * 4 + 4 + 4, "retinanet": 2 * 3 + 2 * 4 * 5}[architecture]
    assert len([name for name in norms if ".trunk." not in name]) == expected


def test_region_heads_hide_their_norms_from_detectron2() -> None:
    """Its convolution refuses an empty input if it holds an nn.SyncBatchNorm, which they are on GPUs."""
    from detectron2.layers import Conv2d

    model = detector("mask_rcnn")
    synchronize_batch_norm(model, torch.device("cuda"))
    convolutions = [
        m for m in model.network.roi_heads.modules() if isinstance(m, Conv2d) and m.norm is not None
    ]
    assert len(convolutions) == 4 + 4
    for convolution in convolutions:
        assert not isinstance(convolution.norm, nn.SyncBatchNorm)
        assert isinstance(convolution.norm[0], nn.SyncBatchNorm)


def test_retinanet_has_statistics_for_each_level() -> None:
    model = settled(detector("retinanet", "relu"))
    for name in ("cls_subnet", "bbox_subnet"):
        levels = model.network.head.get_submodule(name)[1]
        means = torch.stack([level.running_mean for level in levels])
        assert means.shape == (5, 16) and levels.weight.shape == (16,)
        assert torch.pdist(means).min() > 1e-4


def test_phase_1_collects_over_levels_and_calls() -> None:
    model = detector("retinanet")
    site = model.network.head.cls_subnet[2]
    phases = TwoPhaseLearning(model, phase1_steps=2)
    seen: list[Tensor] = []
    site.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    for _ in range(2):  # two micro-batches
        model(images(), targets())
    phases.after_optimizer_step()
    assert [len(x[0, 0]) for x in seen[:5]] == [12, 6, 3, 2, 1]  # heights, of a batch of 96 x 96
    together = torch.cat([x.transpose(0, 1).flatten(1) for x in seen], dim=1)
    torch.testing.assert_close(site.running_mean, together.mean(1))
    torch.testing.assert_close(site.running_std, together.std(1, correction=0))


@both_architectures
def test_state_is_complete(architecture: str) -> None:
    """A detector with another's state, and a copy of it, take the same step as that one."""
    first = detector(architecture)
    first(images(), targets())  # moves running statistics and RetinaNet's normaliser
    second = detector(architecture)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.1)
    second.load_state_dict(first.state_dict())
    losses = []
    for model in (copy.deepcopy(first), second, first):
        torch.manual_seed(2)
        losses.append(model(images(), targets()))
    assert losses[0] == losses[1] == losses[2]


def test_retinanets_normalizer_is_the_recipes_running_mean() -> None:
    model = detector("retinanet")
    counts = []
    original = model.network._ema_update
    model.network._ema_update = lambda name, value, start: (
        counts.append(value) or original(name, value, start)
    )
    expected = DetectorRecipe.loss_normalizer_start
    for _ in range(2):
        model(images(), targets())
        kept = DetectorRecipe.loss_normalizer_momentum
        expected = kept * expected + (1 - kept) * counts[-1]
        assert model.network.loss_normalizer.item() == approx(expected)
    assert counts[0] > 1


@mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_mask_rcnn_has_losses_that_are_not_finite(value: float) -> None:
    """detectron2 raises; our loop must get the usual losses, or it could not tell the other processes.

    And every part must run: the synchronised norms of the heads wait for all processes.
    """
    model = detector("mask_rcnn")
    usual = list(model(images(), targets()))
    with torch.no_grad():
        model.network.proposal_generator.rpn_head.anchor_deltas.bias.fill_(value)
    ran = []
    for head in (model.network.roi_heads.box_head, model.network.roi_heads.mask_head):
        head.register_forward_hook(lambda *_: ran.append(True))
    losses = model(images(), targets())
    assert list(losses) == usual and len(ran) == 2
    total = tiny.total(losses)
    assert not total.isfinite()
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def train_step_of_rank(world: World, architecture: str) -> dict[str, Any]:
    """Take a step in which the second process has no object; return what must be common to both."""
    model = detector(architecture)
    phases = TwoPhaseLearning(model, phase1_steps=1)
    parallel = world.parallel(model)
    losses = parallel(images(), targets(empty=world.rank == 1))
    tiny.total(losses).backward()
    phases.after_optimizer_step()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"names": list(losses), "state": model.state_dict(), "gradients": gradients}


def train_steps_of_rank(world: World) -> dict[str, dict[str, Any]]:
    return {architecture: train_step_of_rank(world, architecture) for architecture in ARCHITECTURES}


def test_a_process_without_objects_keeps_up(tmp_path: Path) -> None:
    first, second = run_function(train_steps_of_rank, processes=2, folder=tmp_path)
    for architecture in ARCHITECTURES:
        one, other = first[architecture], second[architecture]
        assert one["names"] == other["names"]
        for kind in ("state", "gradients"):
            for name, tensor in one[kind].items():
                assert torch.equal(tensor, other[kind][name]), f"{name} differs between ranks"
                assert tensor.isfinite().all(), name


def test_regions_keep_their_corners_in_low_precision() -> None:
    """detectron2 would round a corner at 1001 px to 1000 px where the maps are bfloat16."""
    model = detector("mask_rcnn")
    from detectron2.structures import Boxes

    pooler = model.network.roi_heads.box_pooler
    torch.manual_seed(0)
    levels = [torch.randn(1, 4, 320 // 2**level, 320 // 2**level) for level in range(4)]
    regions = [Boxes(torch.tensor([[1001.0, 1003.0, 1021.0, 1031.0]]))]
    exact = pooler(levels, regions)
    rounded = pooler([level.bfloat16() for level in levels], regions)
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).abs().max() < 0.02

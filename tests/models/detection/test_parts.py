"""The parts of the library torchvision that are not torchvision's own."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from models.detection import DetectorRecipe
from models.detection.anchors import Anchors
from models.detection.backbone import P6P7, build_trunk
from models.detection.images import ImageBatch
from models.detection.regions import ProposalHead, PyramidPool, box_losses, mask_loss
from models.detection.retinanet_head import LevelNorm2d, Subnet


def test_recipe_has_anchors_of_both_papers() -> None:
    recipe = DetectorRecipe()
    assert recipe.rpn_anchor_sides_px() == ((32,), (64,), (128,), (256,), (512,))
    sides = recipe.retinanet_anchor_sides_px()
    assert [level[0] for level in sides] == [32, 64, 128, 256, 512]
    assert sides[1] == pytest.approx((64, 64 * 2 ** (1 / 3), 64 * 2 ** (2 / 3)))
    assert recipe.box_features == 1024
    with pytest.raises(ValueError, match="pyramid_channels is 0, expected a positive number"):
        DetectorRecipe(pyramid_channels=0)


def test_trunk_returns_the_ends_of_four_stages() -> None:
    trunk = build_trunk("resnet18")
    stages = trunk(torch.zeros(2, 3, 72, 96))
    assert trunk.channels == [64, 128, 256, 512]
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 64, 18, 24),
        (2, 128, 9, 12),
        (2, 256, 5, 6),
        (2, 512, 3, 3),
    ]
    assert all(parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize("has_site", [False, True])
def test_p7_is_made_of_the_activated_p6(has_site: bool) -> None:
    levels = P6P7(4, 6, has_site=has_site)
    p6, p7 = levels(torch.randn(1, 4, 8, 6))
    assert p6.shape == (1, 6, 4, 3) and p7.shape == (1, 6, 2, 2)
    assert torch.equal(p7, levels.p7(p6.relu())) and p6.min() < 0


def test_anchors_are_centred_on_exact_strides() -> None:
    anchors = Anchors([(10.0,), (30.0, 40.0)], (0.5, 2.0), (8, 64))
    images = ImageList(torch.zeros(2, 3, 96, 160), [(90, 150), (96, 160)])
    maps = [torch.zeros(2, 1, 12, 20, dtype=torch.bfloat16), torch.zeros(2, 1, 2, 3, dtype=torch.bfloat16)]
    one, other = anchors(images, maps)
    assert (
        torch.equal(one, other) and one.shape == (12 * 20 * 2 + 2 * 3 * 4, 4) and one.dtype == torch.float32
    )
    centres, sides = (one[:, :2] + one[:, 2:]) / 2, one[:, 2:] - one[:, :2]
    torch.testing.assert_close(centres[2 * (20 + 3)], torch.tensor([24.0, 8.0]))
    torch.testing.assert_close(centres[-1], torch.tensor([128.0, 64.0]))
    torch.testing.assert_close(sides.prod(1)[[0, 1, -4, -3]].sqrt(), torch.tensor([10.0, 10, 30, 40]))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 2] * 240 + [0.5, 0.5, 2, 2] * 6))


def test_images_are_normalised_before_they_are_padded() -> None:
    recipe = DetectorRecipe()
    batch = ImageBatch(recipe.image_mean, recipe.image_std, 32)
    images = [torch.rand(3, 40, 60), torch.rand(3, 33, 64)]
    together, _ = batch(images)
    assert together.tensors.shape == (2, 3, 64, 64) and together.image_sizes == [(40, 60), (33, 64)]
    mean, std = (torch.tensor(values)[:, None, None] for values in (recipe.image_mean, recipe.image_std))
    torch.testing.assert_close(together.tensors[1, :, :33], (images[1] - mean) / std)
    assert together.tensors[1, :, 33:].eq(0).all() and together.tensors[0, :, :, 60:].eq(0).all()
    assert not batch.state_dict()


def test_levels_are_normalised_by_statistics_of_their_own() -> None:
    torch.manual_seed(0)
    norm = LevelNorm2d(2, 3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 0.5]))
        norm.bias.copy_(torch.tensor([1.0, -1.0]))
    maps = [torch.randn(2, 2, side, side) * 2**level + 10 * level for level, side in enumerate((8, 4, 2))]
    for level, x in enumerate(maps):
        y = norm(x, level)
        torch.testing.assert_close(y.mean((0, 2, 3)), norm.bias.detach(), atol=1e-4, rtol=0)
        torch.testing.assert_close(norm.levels[level].running_mean, 0.1 * x.mean((0, 2, 3)))
    norm.eval()
    for level, x in enumerate(maps):
        own = norm.levels[level]
        scale = (own.running_var + own.eps).rsqrt()[:, None, None]
        expected = (x - own.running_mean[:, None, None]) * scale
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(norm(x, level), expected)


def test_predictions_are_in_the_order_of_the_anchors() -> None:
    """Level by level, row by row, column by column, anchor by anchor."""
    recipe = DetectorRecipe(pyramid_channels=4, retinanet_convs=0)
    subnet = Subnet(recipe, num_anchors=2, num_outputs=3)
    levels = [torch.randn(2, 4, 3, 5), torch.randn(2, 4, 2, 1)]
    fine, coarse = (subnet.predict(x) for x in levels)
    predictions = subnet(levels)
    assert predictions.shape == (2, (15 + 2) * 2, 3)
    torch.testing.assert_close(predictions[1, (2 * 5 + 4) * 2 + 1], fine[1, 3:, 2, 4])
    torch.testing.assert_close(predictions[0, (15 + 1) * 2], coarse[0, :3, 1, 0])


def test_proposals_are_made_of_float32_under_autocast() -> None:
    head = ProposalHead(4, 3, conv_depth=2)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head([torch.randn(1, 4, 3, 3)])
    assert {x.dtype for levels in outputs for x in levels} == {torch.float32}


def test_regions_are_pooled_aligned_from_the_level_of_their_size() -> None:
    torch.manual_seed(0)
    features = {f"p{k}": torch.randn(2, 3, 512 // 2**k, 512 // 2**k) for k in range(2, 7)}
    pool = PyramidPool(7, (4, 8, 16, 32), 224)
    boxes = [torch.tensor([[0.0, 0, 300, 400], [10, 10, 40, 50]]), torch.tensor([[5.0, 9, 205, 129]])]
    pooled = pool(features, boxes, [(512, 512)] * 2)
    for index, (image, box, level) in enumerate(
        [(0, boxes[0][0], 4), (0, boxes[0][1], 2), (1, boxes[1][0], 3)]
    ):
        region = torch.cat([torch.tensor([float(image)]), box])[None]
        expected = roi_align(features[f"p{level}"], region, 7, 1 / 2**level, aligned=True)
        torch.testing.assert_close(pooled[index : index + 1], expected)
    assert pool(features, [torch.zeros(0, 4)] * 2, [(512, 512)] * 2).shape == (0, 3, 7, 7)


def test_box_losses_count_the_box_of_the_right_class() -> None:
    logits = torch.tensor([[0.0, 9, 0], [9, 0, 0]])
    deltas = torch.arange(24.0).view(2, 12)
    targets = torch.tensor([[4.0, 5, 6, 9], [0, 0, 0, 0]])
    losses = box_losses(logits, deltas, torch.tensor([1, 0]), targets)
    assert losses["loss_box_reg"] == 1.0  # |7 - 9| over two regions
    assert losses["loss_classifier"] < 1e-3
    nothing = box_losses(logits[:0], deltas[:0], torch.zeros(0).long(), targets[:0])
    assert all(loss == 0 for loss in nothing.values())


def test_mask_loss_counts_the_mask_of_the_right_class() -> None:
    logits = torch.full((1, 3, 2, 2), -20.0)
    logits[0, 2] = 20
    ones = torch.ones(1, 2, 2)
    assert mask_loss(logits, ones, torch.tensor([2])) < 1e-6
    assert mask_loss(logits, ones, torch.tensor([1])) > 10
    assert mask_loss(logits[:0], ones[:0], torch.zeros(0).long()) == 0

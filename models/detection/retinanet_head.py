"""RetinaNet's two subnets (arXiv 1708.02002), normalised per level, with detectron2's losses."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import sigmoid_focal_loss

from .detector import Target
from .recipe import NUM_LEVELS, DetectorRecipe


class LevelNorm2d(nn.Module):
    """Batch normalisation with statistics per pyramid level; weight and bias serve all levels.

    Shape:
        input (N, num_channels, H, W) and the level's index from 0, output the same shape.
    """

    # The levels' inputs differ in mean and variance: one running mean for all would normalise each level by
    # the mixture in evaluation (arXiv 2105.07576, section 5.2).

    def __init__(self, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.levels = nn.ModuleList(nn.BatchNorm2d(num_channels, affine=False) for _ in range(num_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        normalized = self.levels[level](x)
        return normalized * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LevelBlock(nn.Module):
    """3x3 convolution, normalisation per level, activation: one activation site for all levels."""

    def __init__(self, num_channels: int, num_levels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight, std=0.01)  # as both libraries
        self.norm = LevelNorm2d(num_channels, num_levels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, level: int) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x), level))
        return y


class Subnet(nn.Module):
    """Convolutions and a prediction that all levels share; it starts near `first_output`.

    Shape:
        per level (N, pyramid_channels, H, W), output (N, sum of H W anchors, num_outputs), float32.
    """

    def __init__(
        self, recipe: DetectorRecipe, num_anchors: int, num_outputs: int, *, first_output: float = 0.0
    ) -> None:
        super().__init__()
        channels = recipe.pyramid_channels
        self.num_outputs = num_outputs
        self.blocks = nn.ModuleList(LevelBlock(channels, NUM_LEVELS) for _ in range(recipe.retinanet_convs))
        self.predict = nn.Conv2d(channels, num_anchors * num_outputs, 3, padding=1)
        nn.init.normal_(self.predict.weight, std=0.01)
        assert self.predict.bias is not None
        nn.init.constant_(self.predict.bias, first_output)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return the predictions for every anchor, level by level, row by row, column by column."""
        return torch.cat([self._on_level(x, level) for level, x in enumerate(levels)], dim=1)

    def _on_level(self, x: Tensor, level: int) -> Tensor:
        for block in self.blocks:
            x = block(x, level)
        y = self.predict(x).float()
        return y.permute(0, 2, 3, 1).reshape(len(y), -1, self.num_outputs)


class RetinaNetHead(nn.Module):
    """Classes and boxes of all anchors, and their losses."""

    # The running mean that both losses are divided by: the same on all processes and part of a checkpoint.
    loss_normalizer: Tensor

    def __init__(self, recipe: DetectorRecipe, num_anchors: int, num_classes: int) -> None:
        super().__init__()
        self.alpha, self.gamma = recipe.focal_alpha, recipe.focal_gamma
        self.momentum = recipe.loss_normalizer_momentum
        prior = recipe.prior_probability
        prior_logit = -math.log((1 - prior) / prior)
        self.classification = Subnet(recipe, num_anchors, num_classes, first_output=prior_logit)
        self.regression = Subnet(recipe, num_anchors, 4)
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.register_buffer("loss_normalizer", torch.tensor(recipe.loss_normalizer_start))

    def forward(self, levels: list[Tensor]) -> dict[str, Tensor]:
        """Return "cls_logits" (N, anchors, classes) and "bbox_regression" (N, anchors, 4)."""
        return {"cls_logits": self.classification(levels), "bbox_regression": self.regression(levels)}

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matches: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return focal loss of the classes and L1 of the boxes, over the running number of object anchors.

        `anchors` (anchors, 4) and `matches` (anchors,) are per image; a match is the target of an anchor, -1
        for background, -2 for neither.
        """
        total = self._moved_normalizer((torch.stack(matches) >= 0).sum())
        logits, deltas = outputs["cls_logits"], outputs["bbox_regression"]
        images = list(zip(targets, matches, strict=True))
        focal = [self._focal_loss(*image, logits[i]) for i, image in enumerate(images)]
        boxes = [self._box_loss(*image, anchors[i], deltas[i]) for i, image in enumerate(images)]
        return {
            "classification": torch.stack(focal).sum() / total,
            "bbox_regression": torch.stack(boxes).sum() / total,
        }

    def _focal_loss(self, target: Target, match: Tensor, logits: Tensor) -> Tensor:
        objects = torch.where(match >= 0)[0]
        wanted = torch.zeros_like(logits)
        wanted[objects, target["labels"][match[objects]]] = 1
        counted = match != Matcher.BETWEEN_THRESHOLDS
        loss: Tensor = sigmoid_focal_loss(
            logits[counted], wanted[counted], alpha=self.alpha, gamma=self.gamma, reduction="sum"
        )
        return loss

    def _box_loss(self, target: Target, match: Tensor, anchors: Tensor, deltas: Tensor) -> Tensor:
        objects = torch.where(match >= 0)[0]
        wanted = self.box_coder.encode_single(target["boxes"][match[objects]], anchors[objects])
        return F.l1_loss(deltas[objects], wanted, reduction="sum")

    @torch.no_grad()
    def _moved_normalizer(self, num_objects: Tensor) -> Tensor:
        """Move the running mean by this batch's number of object anchors, a mean over the processes."""
        mean = num_objects.to(self.loss_normalizer).clamp(min=1)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.loss_normalizer.lerp_(mean, 1 - self.momentum)
        return self.loss_normalizer.clone()

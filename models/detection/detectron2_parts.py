"""detectron2's classes, changed where a training loop that is not detectron2's needs it."""

import torch
import torch.distributed as dist
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, GeneralizedRCNN
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .backbone import TRUNK_STRIDES_PX, Trunk
from .recipe import DetectorRecipe

TRUNK_FEATURES = ("res2", "res3", "res4", "res5")  # detectron2's words for C2 ... C5


class TrunkBackbone(Backbone):
    """The trunk in detectron2's form of a backbone."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(TRUNK_FEATURES, self.trunk(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=channels, stride=stride)
            for name, channels, stride in zip(
                TRUNK_FEATURES, self.trunk.channels, TRUNK_STRIDES_PX, strict=True
            )
        }


class Pyramid(FPN):
    """The feature pyramid, with the recipe's padding of the images."""

    def __init__(
        self, trunk: Trunk, recipe: DetectorRecipe, *, in_features: tuple[str, ...], top_block: nn.Module
    ) -> None:
        super().__init__(
            TrunkBackbone(trunk), in_features, recipe.pyramid_channels, norm="BN", top_block=top_block
        )
        self._size_divisible_px = recipe.size_divisible_px

    @property
    def size_divisibility(self) -> int:
        return self._size_divisible_px


def hidden_batch_norm(num_channels: int) -> nn.Module:
    """Return batch norm for the RoI heads, inside of a container."""
    # detectron2's convolution refuses an empty input if its norm is an nn.SyncBatchNorm. Ours takes one (see
    # models.sync_batch_norm), and in a container that check does not see it.
    return nn.Sequential(nn.BatchNorm2d(num_channels))


class MaskRCNN(GeneralizedRCNN):
    """Mask R-CNN whose masks are cut at the recipe's threshold."""

    def __init__(self, recipe: DetectorRecipe, **parts: nn.Module) -> None:
        super().__init__(pixel_mean=recipe.image_mean, pixel_std=recipe.image_std, **parts)
        self.mask_threshold = recipe.mask_threshold

    def inference(
        self,
        batched_inputs: list[dict[str, Tensor]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict[str, Instances]] | list[Instances]:
        found = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return found
        return [
            {"instances": detector_postprocess(one, image["height"], image["width"], self.mask_threshold)}
            for one, image in zip(found, batched_inputs, strict=True)
        ]


class SharedNormalizerRetinaNet(RetinaNet):
    """RetinaNet whose loss normaliser is part of the state and the same on all processes."""

    # The running number of object anchors per batch of one process, shape (). detectron2 has a Python number
    # of each process, which a resumed run would start anew.
    loss_normalizer: Tensor

    def __init__(self, recipe: DetectorRecipe, **parts: object) -> None:
        super().__init__(pixel_mean=recipe.image_mean, pixel_std=recipe.image_std, **parts)
        self._momentum = recipe.loss_normalizer_momentum
        self.register_buffer("loss_normalizer", torch.tensor(float(recipe.loss_normalizer_start)))

    @torch.no_grad()
    def _ema_update(self, name: str, value: float, initial_value: float, momentum: float = 0.9) -> Tensor:
        count = self.loss_normalizer.new_tensor(value)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(count)
            count /= dist.get_world_size()
        self.loss_normalizer.mul_(self._momentum).add_(count * (1 - self._momentum))
        return self.loss_normalizer.clone()  # the buffer may move again before this batch's backward


def with_float32_outputs(head: nn.Module) -> nn.Module:
    """Let `head`, which returns a tuple of tensors or lists of them, return float32 under autocast too."""
    # Boxes and scores are made of its outputs; many would be equal in a lower precision.
    head.register_forward_hook(_to_float32)
    return head


def _to_float32(head: nn.Module, inputs: object, outputs: tuple[Tensor | list[Tensor], ...]) -> object:
    return tuple(
        output.float() if isinstance(output, Tensor) else [level.float() for level in output]
        for output in outputs
    )


class Float32Pooler(ROIPooler):
    """detectron2's pooler, which would round the regions' corners to the precision of the maps."""

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        with torch.autocast(x[0].device.type, enabled=False):
            pooled: Tensor = super().forward([level.float() for level in x], box_lists)
        return pooled.to(x[0].dtype)


class TolerantProposals(RPN):
    """detectron2's region proposals, without its error where an output is not finite."""

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        # The training loop stops all processes together when a loss is not finite; until then each must do
        # what the others do. The losses are made of the outputs themselves.
        logits = [_finite(level) for level in pred_objectness_logits]
        deltas = [_finite(level) for level in pred_anchor_deltas]
        proposals: list[Instances] = super().predict_proposals(anchors, logits, deltas, image_sizes)
        return proposals


def _finite(output: Tensor) -> Tensor:
    # The outputs of a trained network are far below the limit.
    return output.detach().nan_to_num(0.0).clamp(-1e6, 1e6)

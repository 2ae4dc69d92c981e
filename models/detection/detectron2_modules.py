"""What detectron2's detectors need around them to be trained by a loop that is not detectron2's."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, GeneralizedRCNN
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from .backbone import TRUNK_STRIDES_PX, Trunk
from .detector import Detector
from .images import Target
from .recipe import DetectorRecipe
from .sites import Probe, zero_region

TRUNK_FEATURES = ("res2", "res3", "res4", "res5")  # detectron2's words for C2 ... C5


class TrunkBackbone(Backbone):
    """The trunk that both engines share, in detectron2's form of a backbone."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return C2 ... C5 of `images` (N, 3, H, W) by their names."""
        return dict(zip(TRUNK_FEATURES, self.trunk(images), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each output."""
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
        """What the height and the width of a batch are multiples of, in pixels."""
        return self._size_divisible_px


def hidden_batch_norm(num_channels: int) -> nn.Module:
    """Batch norm for the RoI heads, inside of a container.

    detectron2's convolution refuses an empty input if its norm is an nn.SyncBatchNorm. Ours takes one
    (see `models.sync_batch_norm`), so it is kept out of that test's sight.
    """
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
        """Detect as detectron2 does; `do_postprocess` scales to the original images."""
        found = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        if not do_postprocess:
            return found
        return [
            {"instances": detector_postprocess(one, image["height"], image["width"], self.mask_threshold)}
            for one, image in zip(found, batched_inputs, strict=True)
        ]


class SharedNormalizerRetinaNet(RetinaNet):
    """RetinaNet whose loss normaliser is part of the state and the same on all processes.

    detectron2 keeps the running number of object anchors as a Python number of each process: a resumed run
    would start it anew and take other steps than the uninterrupted one. Here it is a buffer, moved by the
    mean over the processes.

    Attributes:
        loss_normalizer: running number of object anchors per batch of one process, shape ().
    """

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


class Detectron2Detector(Detector):
    """One of detectron2's networks behind the interface of both engines.

    Attributes:
        network: a MaskRCNN or a SharedNormalizerRetinaNet.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return detectron2's losses; see `Detector.forward`."""
        inputs = [
            {"image": image, "instances": _instances(image, target)}
            for image, target in zip(images, targets, strict=True)
        ]
        # The storage is where detectron2's losses put what its own trainer would log. Its focal loss is
        # compiled by TorchScript, which optimises a function at its third call, with other roundings: a
        # resumed run would not take the same steps.
        with EventStorage(), torch.jit.optimized_execution(False):
            losses: dict[str, Tensor] = self.network(inputs)
        return losses

    def detections(self, images: list[Tensor], original_sizes: list[tuple[int, int]]) -> list[Target]:
        """Return detectron2's detections; see `Detector.forward`."""
        inputs = [
            {"image": image, "height": height, "width": width}
            for image, (height, width) in zip(images, original_sizes, strict=True)
        ]
        return [_detection(output["instances"]) for output in self.network(inputs)]


class MaskRCNNDetector(Detectron2Detector):
    """detectron2's Mask R-CNN."""

    def probe(self) -> Probe:
        """Return the detector in the form that `replace_sites` takes."""
        heads = self.network.roi_heads
        parts = {
            "backbone": self.network.backbone,
            "rpn": self.network.proposal_generator.rpn_head,
            "box_head": heads.box_head,
            "box_predictor": heads.box_predictor,
            "mask_head": heads.mask_head,  # with its predictor
        }
        cells = heads.box_pooler.output_size[0], heads.mask_pooler.output_size[0]

        def run(parts: Mapping[str, Any], images: Tensor) -> None:
            levels = list(parts["backbone"](images).values())
            parts["rpn"](levels)
            box_region, mask_region = (zero_region(levels[0].shape[1], side, like=images) for side in cells)
            parts["box_predictor"](parts["box_head"](box_region))
            parts["mask_head"].layers(mask_region)

        return Probe(parts, run)


class RetinaNetDetector(Detectron2Detector):
    """detectron2's RetinaNet."""

    def probe(self) -> Probe:
        """Return the detector in the form that `replace_sites` takes."""

        def run(parts: Mapping[str, Any], images: Tensor) -> None:
            parts["head"](list(parts["backbone"](images).values()))

        return Probe({"backbone": self.network.backbone, "head": self.network.head}, run)


def _instances(image: Tensor, target: Target) -> Instances:
    """One image's target in detectron2's form."""
    instances = Instances(tuple(image.shape[-2:]))
    instances.gt_boxes = Boxes(target["boxes"])
    instances.gt_classes = target["labels"]
    if "masks" in target:
        instances.gt_masks = BitMasks(target["masks"])
    return instances


def _detection(instances: Instances) -> Target:
    """One image's detections as plain tensors; detectron2 returns them by falling score."""
    found = {
        "boxes": instances.pred_boxes.tensor,
        "scores": instances.scores,
        "labels": instances.pred_classes,
    }
    return found | ({"masks": instances.pred_masks} if instances.has("pred_masks") else {})

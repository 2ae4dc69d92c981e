"""detectron2's parts, made to keep float32 where it matters and to go on where numbers are not finite."""

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn


def with_float32_outputs(head: nn.Module) -> nn.Module:
    """Let `head`, which returns a tuple of tensors or lists of them, return float32 under autocast too.

    Boxes and scores are made of its outputs; many would be equal in a lower precision.
    """
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
        """Pool the maps `x`, one per level, inside the boxes of each image."""
        with torch.autocast(x[0].device.type, enabled=False):
            pooled: Tensor = super().forward([level.float() for level in x], box_lists)
        return pooled.to(x[0].dtype)


class TolerantProposals(RPN):
    """detectron2's region proposals, which also come where the network has diverged.

    detectron2 raises an error if an output is not finite. The training loop has its own way to stop, on all
    processes together, when a loss is not; until then every process must do what the others do.
    """

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Return proposals of finite outputs; the losses are made of the outputs themselves."""
        logits = [_finite(level) for level in pred_objectness_logits]
        deltas = [_finite(level) for level in pred_anchor_deltas]
        proposals: list[Instances] = super().predict_proposals(anchors, logits, deltas, image_sizes)
        return proposals


def _finite(output: Tensor) -> Tensor:
    """Replace what no box could be made of; numbers of a trained network are far below the limit."""
    return output.detach().nan_to_num(0.0).clamp(-1e6, 1e6)

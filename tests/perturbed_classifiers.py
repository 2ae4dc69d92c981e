"""Table 2's networks as training might leave them, and photographs for them."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import activation_factory, build_classifier
from pwlu import PWLU
from tests.engine.image_files import picture

CLASSIFIERS = ("resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0")
IMAGE_SIZE_PX = 64


def photographs(split: str, count: int) -> Tensor:
    """Return normalised images (count, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX) of the split "train" or "val".

    They are photographs where PWLU_DATA names a folder of them, otherwise pictures made for the tests.
    """
    if "PWLU_DATA" in os.environ:
        images = _from_archive(Path(os.environ["PWLU_DATA"]) / "cls_224_tiny.tar", split, count)
    else:
        images = [picture(number + 1000 * (split == "val")) for number in range(count)]
    size = (IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    pixels = np.stack([np.asarray(image.convert("RGB").resize(size), np.float32) for image in images])
    return ((torch.from_numpy(pixels) / 255 - 0.45) / 0.22).permute(0, 3, 1, 2).contiguous()


def _from_archive(path: Path, split: str, count: int) -> list[Image.Image]:
    """`count` images of a split, spread over its classes."""
    with tarfile.open(path) as tar:
        names = sorted(name for name in tar.getnames() if f"{split}/" in name and name.endswith(".jpg"))
        chosen = names[:: len(names) // count][:count]
        return [Image.open(io.BytesIO(tar.extractfile(name).read())) for name in chosen]


def perturbed_classifier(name: str) -> nn.Module:
    """Return the network `name` for 10 classes, in eval mode, moved away from its start.

    Its PWLUs are no ReLUs and its BatchNorms have scales of either sign and the statistics of photographs;
    its logits tell these apart: they have a mean of 0 and a standard deviation of 0.5.
    """
    torch.manual_seed(1)
    images = photographs("train", 32)
    make = activation_factory("pwlu")
    model, _ = build_classifier(name, make, num_classes=10, input_size=tuple(images.shape[1:]))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, PWLU):
                _perturb(module)
        for norm in norms:
            _move(norm)
        model.train()(images)
        for norm in norms:  # an untrained network's channels of little variance would magnify rounding
            norm.running_var.clamp_(min=norm.running_var.median())
        _scale_logits(model.get_classifier(), model.eval()(images), std=0.5)
    return model


def _perturb(module: PWLU) -> None:
    module.left.uniform_(-3.5, -2.5)
    module.right.uniform_(2.5, 3.5)
    module.points.add_(0.03 * torch.randn_like(module.points))
    module.left_slope.uniform_(-0.1, 0.1)
    module.right_slope.uniform_(0.9, 1.1)


def _move(norm: _BatchNorm) -> None:
    ends_branch = not norm.weight.any()  # timm lets residual branches start at 0
    norm.weight.uniform_(0.7, 1.3).mul_(0.3 if ends_branch else 1.0)[::5].neg_()
    norm.bias.normal_(0, 0.2)
    norm.momentum = None  # the statistics become those of the next forward


def _scale_logits(head: nn.Linear, logits: Tensor, std: float) -> None:
    mean = logits.mean(0)
    head.bias.sub_(mean).mul_(std / (logits - mean).std())
    head.weight.mul_(std / (logits - mean).std())

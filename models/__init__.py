"""The paper's activations and the networks that they are compared in (detectors: models.detection)."""

from .activations import ACTIVATIONS, ORIGINAL, REPLACED, activation_factory, is_activation, put_activations
from .apl import APL
from .classification import build_classifier
from .frelu import FReLU
from .narrow import efficientnet_b0_025, resnet18_025
from .pau import PAU
from .sync_batch_norm import is_synchronized, synchronize_batch_norm

__all__ = [
    "ACTIVATIONS",
    "APL",
    "ORIGINAL",
    "PAU",
    "REPLACED",
    "FReLU",
    "activation_factory",
    "build_classifier",
    "efficientnet_b0_025",
    "is_activation",
    "is_synchronized",
    "put_activations",
    "resnet18_025",
    "synchronize_batch_norm",
]

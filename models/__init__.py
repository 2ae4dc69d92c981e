"""The paper's activations and the classification networks that they are compared in."""

from .activations import ACTIVATIONS, activation_factory, is_activation
from .apl import APL
from .classification import build_classifier
from .frelu import FReLU
from .pau import PAU

__all__ = ["ACTIVATIONS", "APL", "PAU", "FReLU", "activation_factory", "build_classifier", "is_activation"]

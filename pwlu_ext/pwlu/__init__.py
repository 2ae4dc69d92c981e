"""The Piecewise Linear Unit (PWLU): operator, layer and two-phase learning.

Reference: Zhou, Zhu, Zhong. Learning specialized activation functions with the Piecewise Linear Unit.
ICCV 2021.
"""

from .library import build_info
from .module import PWLU
from .ops import pwlu
from .reference import pwlu_reference
from .surgery import ReplacementReport, Site, replace_activations
from .two_phase import TwoPhaseLearning

__all__ = [
    "PWLU",
    "ReplacementReport",
    "Site",
    "TwoPhaseLearning",
    "build_info",
    "pwlu",
    "pwlu_reference",
    "replace_activations",
]

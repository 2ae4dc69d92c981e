"""The Piecewise Linear Unit (PWLU): operator, layer and two-phase learning.

Reference: Zhou, Zhu, Zhong. Learning specialized activation functions with the Piecewise Linear Unit.
ICCV 2021.
"""

from .fold import fold
from .folded import FoldedPWLU
from .library import build_info
from .module import PWLU
from .ops import pwlu
from .reference import pwlu_reference
from .surgery import ReplacementReport, Site, replace_activations
from .two_phase import TwoPhaseLearning

__all__ = [
    "FoldedPWLU",
    "PWLU",
    "ReplacementReport",
    "Site",
    "TwoPhaseLearning",
    "build_info",
    "fold",
    "pwlu",
    "pwlu_reference",
    "replace_activations",
]

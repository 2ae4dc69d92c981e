"""The Piecewise Linear Unit (PWLU): operator, layer and two-phase learning.

Reference: Zhou, Zhu, Zhong. Learning specialized activation functions with the Piecewise Linear Unit.
ICCV 2021.
"""

from .calibration import calibrate
from .calibration_report import CalibratedSite, CalibrationReport
from .fused.fuse import FusedSite, FuseReport, fuse_batch_norm
from .inference.convolutions import ConvolutionPWLU
from .inference.folded import FoldedPWLU
from .inference.folding import FoldReport, fold
from .inference.hinges import HingePWLU
from .inference.scaled_hinges import ScaledHingePWLU
from .library import build_info
from .module import PWLU
from .ops import pwlu
from .reference import pwlu_reference
from .starting import StartingFunction
from .surgery.replace import replace_activations
from .surgery.report import ReplacementReport, Site
from .two_phase import TwoPhaseLearning
from .weight_decay import parameter_groups

__all__ = [
    "CalibratedSite",
    "CalibrationReport",
    "ConvolutionPWLU",
    "FoldReport",
    "FoldedPWLU",
    "FuseReport",
    "FusedSite",
    "HingePWLU",
    "PWLU",
    "ReplacementReport",
    "ScaledHingePWLU",
    "Site",
    "StartingFunction",
    "TwoPhaseLearning",
    "build_info",
    "calibrate",
    "fold",
    "fuse_batch_norm",
    "parameter_groups",
    "pwlu",
    "pwlu_reference",
    "replace_activations",
]

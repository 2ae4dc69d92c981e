"""Mask R-CNN and RetinaNet (section 4.2) with the activations of the paper, from two libraries."""

from .backbone import stages_of
from .build import ARCHITECTURES, LIBRARIES, build_detector
from .detector import Detector
from .recipe import DetectorRecipe
from .sites import PROBE_SIZE, replace_sites

__all__ = [
    "ARCHITECTURES",
    "LIBRARIES",
    "PROBE_SIZE",
    "Detector",
    "DetectorRecipe",
    "build_detector",
    "replace_sites",
    "stages_of",
]

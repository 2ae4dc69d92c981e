"""Mask R-CNN and RetinaNet (section 4.2) with the activations of the paper, from two libraries."""

from .build import ARCHITECTURES, LIBRARIES, build_detector
from .detector import Detector
from .recipe import DetectorRecipe

__all__ = ["ARCHITECTURES", "LIBRARIES", "Detector", "DetectorRecipe", "build_detector"]

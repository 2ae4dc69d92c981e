"""The detectors by name, with their activations replaced."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import nn

from pwlu import ReplacementReport
from pwlu.suggestion import expected_one_of

from .backbone import build_trunk
from .detector import Detector
from .recipe import DetectorRecipe
from .sites import replace_sites

ARCHITECTURES = ("mask_rcnn", "retinanet")
LIBRARIES = ("torchvision", "detectron2")

TESTED_DETECTRON2 = "02b5c4e"
INSTALL_DETECTRON2 = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def build_detector(
    architecture: str,
    library: str,
    make: Callable[..., nn.Module] | None,
    *,
    num_classes: int,
    backbone: str = "resnet50",
    pretrained: bool = False,
    init: str | None = None,
    recipe: DetectorRecipe | None = None,
    replace_all: bool = False,
) -> tuple[Detector, ReplacementReport]:
    """Build a detector and put `make(num_channels)` at its activation sites (see `sites.py`).

    The sites are the same whatever `make` is and in both libraries, so that the rows of Table 3 differ in
    nothing else: 60 in Mask R-CNN and 57 in RetinaNet on a ResNet-50.

    Args:
        library: whose heads, losses and post-processing, one of `LIBRARIES` (docs/detectors.md).
        make: what `models.activation_factory` returns.
        num_classes: without background.
        backbone: timm's name of a ResNet.
        pretrained: with timm's trained weights of the backbone; all else from scratch.
        init: "replaced" if PWLUs start as what was there.
        recipe: all other numbers; None means the paper's.
        replace_all: replace also the activations with tiny inputs (see `replace_sites`).

    Returns:
        The detector in training mode, and the report of the replacement. Its batch norms fail on empty
        inputs: call `models.synchronize_batch_norm`, for a single process too.

    Raises:
        ValueError: an unknown word, a wrong number, a library that is not installed, or an unfit `make`.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(expected_one_of("architecture", architecture, ARCHITECTURES))
    if library not in LIBRARIES:
        raise ValueError(expected_one_of("library", library, LIBRARIES))
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected >= 1")
    detectors = _detectors_of(library)
    parts: dict[str, Any] = {"num_classes": num_classes, "recipe": recipe or DetectorRecipe()}
    parts["trunk"] = build_trunk(backbone, pretrained=pretrained)
    if architecture == "mask_rcnn":
        detector: Detector = detectors.build_mask_rcnn(**parts)
    else:
        detector = detectors.build_retinanet(**parts, replace_all=replace_all)
    return detector, replace_sites(detector.probe(), make, init=init, replace_all=replace_all)


def _detectors_of(library: str) -> ModuleType:
    # Only the library that was asked for needs to be installed.
    try:
        return import_module(f".{library}_detectors", __package__)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"library={library} needs the package {error.name!r}, which is not installed; "
            "library=torchvision needs nothing more; "
            f"to install detectron2 (tested: commit {TESTED_DETECTRON2}) see {INSTALL_DETECTRON2}"
        ) from error

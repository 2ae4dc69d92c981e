"""The detectors by name, with their activations replaced."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from torch import nn

from pwlu import ReplacementReport

from .backbone import build_trunk
from .detector import Detector
from .recipe import DetectorRecipe
from .sites import replace_sites

ARCHITECTURES = ("mask_rcnn", "retinanet")
ENGINES = ("torchvision", "detectron2")

TESTED_DETECTRON2 = "02b5c4e"
INSTALL_DETECTRON2 = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def build_detector(
    architecture: str,
    engine: str,
    make: Callable[..., nn.Module],
    *,
    num_classes: int,
    backbone: str = "resnet50",
    recipe: DetectorRecipe | None = None,
    replace_all: bool = False,
) -> tuple[Detector, ReplacementReport]:
    """Build a detector from scratch and put `make(num_channels)` at its activation sites (see `sites.py`).

    The sites are the same whatever `make` is and in both engines, so that the rows of Table 3 differ in
    nothing else: 60 in Mask R-CNN and 57 in RetinaNet on a ResNet-50.

    Args:
        architecture: one of `ARCHITECTURES`.
        engine: whose implementation, one of `ENGINES`. Losses, sampling and heads differ in detail.
        make: what `models.activation_factory` returns.
        num_classes: without background.
        backbone: timm's name of the network below.
        recipe: all other numbers; None means the paper's.
        replace_all: replace also the activation after the box head's fully connected layer and RetinaNet's
            between P6 and P7.

    Returns:
        The detector in training mode on the default device, and the report of the replacement. Its batch
        norms are not synchronised and fail on empty inputs: call `synchronize_batch_norm` of
        `models/sync_batch_norm.py`, for a single process too.

    Raises:
        ValueError: an unknown word, a wrong number, an engine that is not installed, or an unfit `make`.
    """
    _check_word("architecture", architecture, ARCHITECTURES)
    _check_word("engine", engine, ENGINES)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected >= 1")
    library = _library(engine)
    parts = {"num_classes": num_classes, "trunk": build_trunk(backbone), "recipe": recipe or DetectorRecipe()}
    if architecture == "mask_rcnn":
        detector: Detector = library.build_mask_rcnn(**parts)
    else:
        detector = library.build_retinanet(**parts, replace_all=replace_all)
    return detector, replace_sites(detector.probe(), make, replace_all=replace_all)


def _check_word(name: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise ValueError(f"{name} is {word!r}, expected one of {', '.join(words)}")


def _library(engine: str) -> ModuleType:
    """Import the engine's file; only the one that was asked for needs to be installed."""
    try:
        return import_module(f".{engine}_engine", __package__)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"engine={engine} needs the package {error.name!r}, which is not installed; engine=torchvision "
            f"needs nothing more; to install detectron2 (tested: commit {TESTED_DETECTRON2}) see "
            f"{INSTALL_DETECTRON2}"
        ) from error

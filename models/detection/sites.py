"""Replacing a detector's activations: which places are sites, and the report of it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pwlu import ReplacementReport

from ..activations import put_activations
from ..frelu import FReLU

# Of the measuring forward: C5 is 8 x 8, P7 2 x 2, so that no map of a backbone is tiny.
PROBE_SIZE = (3, 256, 256)


class Probe(nn.Module):
    """A detector without its proposals and detections: one forward reaches every activation.

    It holds the detector's own modules (`parts`, by name), so what is replaced in it is replaced in the
    detector. `run` calls them on images (1, *PROBE_SIZE), and on zeros in place of pooled
    regions, and returns what they give.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], run: Callable[[Mapping[str, nn.Module], Tensor], object]
    ) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._run = run

    def forward(self, images: Tensor) -> object:
        return self._run(dict(self.named_children()), images)


def mask_rcnn_probe(
    parts: Mapping[str, nn.Module],
    cells: tuple[int, int],
    run_masks: Callable[[Mapping[str, Any], Tensor], object],
) -> Probe:
    """Return the probe of a Mask R-CNN of parts backbone, rpn, box_head, box_predictor and those for masks.

    `cells` are the sides of the pooled maps of the box and the mask head; `run_masks` runs the mask parts.
    """

    def run(parts: Mapping[str, nn.Module], images: Tensor) -> object:
        levels = list(parts["backbone"](images).values())
        box_region, mask_region = (levels[0].new_zeros(1, levels[0].shape[1], side, side) for side in cells)
        boxes = parts["box_predictor"](parts["box_head"](box_region))
        return parts["rpn"](levels), boxes, run_masks(parts, mask_region)

    return Probe(parts, run)


def retinanet_probe(backbone: nn.Module, head: nn.Module) -> Probe:
    """Return the probe of a RetinaNet."""

    def run(parts: Mapping[str, nn.Module], images: Tensor) -> object:
        return parts["head"](list(parts["backbone"](images).values()))

    return Probe({"backbone": backbone, "head": head}, run)


def replace_sites(
    probe: Probe,
    make: Callable[..., nn.Module] | None,
    *,
    init: str | None = None,
    replace_all: bool = False,
) -> ReplacementReport:
    """Put `make(num_channels)` at the detector's activation sites; the paper's rule leaves out tiny maps.

    Where `make` is None all stay as they are; `init` is that of `pwlu.replace_activations`.

    Sites are the backbone's, the region proposal head's, the box head's convolutions', the mask head's and
    its predictor's, or the two subnets' of RetinaNet. Left alone are the ReLU after the box head's fully
    connected layer (its map is a single position) and RetinaNet's between P6 and P7.

    `replace_all` replaces those two also; the one between P6 and P7 must be a module then. Raises ValueError
    where there is nothing to replace, for an unfit `make`, and for FReLU together with `replace_all`.
    """
    report = put_activations(
        probe,
        make,
        init=init,
        input_size=PROBE_SIZE,
        min_positions=1 if replace_all else 2,
    )
    for site in report.sites:
        if site.replaced and site.spatial_size == () and isinstance(probe.get_submodule(site.name), FReLU):
            raise ValueError(
                f"replace_all=True puts FReLU, a convolution over maps, after the fully connected layer at "
                f"{site.name}; use another activation or replace_all=False"
            )
    return report

"""The interface of all detectors, whichever library they are made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from .sites import Probe

Target = dict[str, Tensor]


class Detector(nn.Module, ABC):
    """A detector that is trained and asked through `forward`, which DistributedDataParallel wraps.

    Images are float32 (3, h, w), RGB in [0, 1], already resized. Classes are 0 ... K - 1, boxes float32
    (n, 4), x1 y1 x2 y2.
    """

    def forward(
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        *,
        original_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor] | list[Target]:
        """Return the losses in training mode, the detections in eval mode.

        In training mode `targets` has per image "boxes" in its pixels, "labels" int64 (n,) and, for Mask
        R-CNN, "masks" uint8 (n, h, w), n >= 0; the losses are scalars by name, to be added up. In eval mode
        `original_sizes` are (height, width) before resizing (None: the images' own), to which the detections
        refer: per image "boxes", "scores" float32 (n,), falling, "labels" and perhaps "masks", bool.
        Raises ValueError for no images, or other than one target per image in training mode.
        """
        if not images:
            raise ValueError("images: expected at least one, got none")
        if self.training:
            if targets is None or len(targets) != len(images):
                got = "none" if targets is None else len(targets)
                raise ValueError(
                    f"targets: expected {len(images)}, as many as images, in training, got {got}"
                )
            return self.losses(images, targets)
        sizes = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
        sizes = sizes if original_sizes is None else [(int(h), int(w)) for h, w in original_sizes]
        if len(sizes) != len(images):
            raise ValueError(f"original_sizes: expected {len(images)}, as many as images, got {len(sizes)}")
        return self.detections(images, sizes)

    @abstractmethod
    def probe(self) -> Probe:
        """Return the detector in the form that `replace_sites` takes."""

    @abstractmethod
    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of a batch, as `forward` does."""

    @abstractmethod
    def detections(self, images: list[Tensor], original_sizes: list[tuple[int, int]]) -> list[Target]:
        """Return the detections of each image, as `forward` does."""

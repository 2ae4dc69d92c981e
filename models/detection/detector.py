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

        Args:
            images: at least one.
            targets: in training mode, per image "boxes" in its pixels, "labels" int64 (n,) and, for Mask
                R-CNN, "masks" uint8 (n, h, w); n may be 0.
            original_sizes: in eval mode, (height, width) of every image before it was resized; without them
                the images' own.

        Returns:
            In training mode scalar losses by name, to be added up. In eval mode per image "boxes" in pixels
            of the original image, "scores" float32 (n,), falling, "labels" int64 (n,), and, from Mask R-CNN,
            "masks" bool (n, height, width) of the original image.

        Raises:
            ValueError: no images, no targets in training mode, or not as many as images.
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

"""Every number of the detectors that is not of the training schedule (section 4.2), for both libraries."""

from dataclasses import dataclass

NUM_LEVELS = 5  # of either pyramid: P2 to P6 in Mask R-CNN, P3 to P7 in RetinaNet
RPN_STRIDES_PX = (4, 8, 16, 32, 64)  # of P2 ... P6
RETINANET_STRIDES_PX = (8, 16, 32, 64, 128)  # of P3 ... P7


@dataclass(frozen=True)
class DetectorRecipe:
    """Sizes, thresholds and counts of Mask R-CNN and RetinaNet with a feature pyramid.

    The values are those of the two papers as detectron2 has them in its R50-FPN configurations (box and mask
    head as where it trains from scratch: four convolutions with normalisation). Overlaps are intersection
    over union, lengths are pixels of the resized image, counts are per image unless said otherwise. Raises
    ValueError for a width, a size or a count that is not positive.
    """

    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]: ImageNet's
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisible_px: int = 32  # a batch's height and width are padded to multiples of it
    pyramid_channels: int = 256  # of the pyramid and of every convolution of the heads
    smallest_anchor_px: float = 32.0  # side of the finest level's anchors; it doubles from level to level
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    retinanet_anchors_per_octave: int = 3  # n: sides of 2^(0/n), 2^(1/n), ... times a level's side

    rpn_convs: int = 2  # 3x3 convolutions of the region proposal head, each with an activation, without norm
    rpn_foreground_iou: float = 0.7  # an anchor is an object from here on ...
    rpn_background_iou: float = 0.3  # ... and background below there
    rpn_samples: int = 256  # anchors that the loss is taken of ...
    rpn_positive_fraction: float = 0.5  # ... and how many of them are objects at most
    rpn_candidates_train: int = 2000  # best proposals per level before suppression
    rpn_candidates_test: int = 1000
    rpn_proposals_train: int = 1000  # best proposals of all levels after suppression
    rpn_proposals_test: int = 1000
    rpn_nms_iou: float = 0.7  # a proposal that overlaps a better one of its level by more is suppressed

    roi_canonical_px: float = 224.0  # side of a box pooled from P4 (arXiv 1612.03144, Eq. 1)
    box_roi_cells: int = 7  # side of the pooled map
    mask_roi_cells: int = 14  # masks are predicted at twice this side
    box_convs: int = 4  # 3x3 convolutions with norm and activation
    mask_convs: int = 4
    box_features_per_channel: int = 4  # the hidden fully connected layer has this times pyramid_channels
    box_foreground_iou: float = 0.5  # a proposal is an object from here on, else background
    region_samples: int = 512  # proposals that the loss is taken of ...
    box_positive_fraction: float = 0.25  # ... and how many of them are objects at most
    box_delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # times (dx, dy, dw, dh)
    mask_threshold: float = 0.5  # a pixel is the object's from this probability on

    retinanet_convs: int = 4  # 3x3 convolutions with norm and activation of each of the two subnets
    retinanet_foreground_iou: float = 0.5  # as in the region proposal head
    retinanet_background_iou: float = 0.4
    focal_alpha: float = 0.25  # of the focal loss (arXiv 1708.02002)
    focal_gamma: float = 2.0
    prior_probability: float = 0.01  # of every class at the start
    retinanet_candidates: int = 1000  # best predictions per level before suppression
    loss_normalizer_momentum: float = 0.9  # of the running number of object anchors per batch of one process
    loss_normalizer_start: float = 100.0

    score_threshold: float = 0.05  # detections with a lower score are dropped
    nms_iou: float = 0.5  # a detection that overlaps a better one of its class by more is suppressed
    detections: int = 100  # at most so many are returned

    def __post_init__(self) -> None:
        for name in ("pyramid_channels", "smallest_anchor_px", "size_divisible_px", "detections"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"detector recipe: {name} is {value!r}, expected a positive number")

    @property
    def box_features(self) -> int:
        return self.box_features_per_channel * self.pyramid_channels

    def rpn_anchor_sides_px(self) -> tuple[tuple[float, ...], ...]:
        """Return the anchors' sides (of the square ones) for P2 ... P6: one per level."""
        return tuple((self.smallest_anchor_px * 2**level,) for level in range(NUM_LEVELS))

    def retinanet_anchor_sides_px(self) -> tuple[tuple[float, ...], ...]:
        """Return the anchors' sides (of the square ones) for P3 ... P7: one octave per level."""
        count = self.retinanet_anchors_per_octave
        return tuple(
            tuple(self.smallest_anchor_px * 2 ** (level + step / count) for step in range(count))
            for level in range(NUM_LEVELS)
        )

"""Every number of the two detectors that is not of the training schedule (section 4.2), for both engines."""

from dataclasses import dataclass

NUM_LEVELS = 5  # of either pyramid: P2 to P6 in Mask R-CNN, P3 to P7 in RetinaNet


@dataclass(frozen=True)
class DetectorRecipe:
    """Sizes, thresholds and counts of Mask R-CNN and RetinaNet with a feature pyramid.

    The values are those of the two papers as detectron2 has them in its R50-FPN configurations (box and mask
    head as where it trains from scratch: four convolutions with normalisation). Overlaps are intersection
    over union, lengths are pixels of the resized image, counts are per image unless said otherwise.

    Attributes:
        image_mean, image_std: of the RGB channels of an image in [0, 1]; ImageNet's.
        size_divisible_px: a batch's images are padded with zeros at the right and the bottom to a common
            height and width, each a multiple of this.
        pyramid_channels: width of the pyramid and of every convolution of the heads.
        smallest_anchor_px: side of the anchors of the finest level; it doubles from level to level.
        anchor_ratios: height / width of the anchors at every position.
        retinanet_anchors_per_octave: n; RetinaNet's anchors of a level are 2^(0/n), 2^(1/n), ... its side.

        rpn_convs: 3x3 convolutions of the region proposal head, each with an activation, without norm.
        rpn_foreground_iou, rpn_background_iou: an anchor is an object from here on, background below there.
        rpn_samples, rpn_positive_fraction: anchors that the loss is taken of, and how many objects at most.
        rpn_candidates_train, rpn_candidates_test: best proposals per level before suppression.
        rpn_proposals_train, rpn_proposals_test: best proposals of all levels after suppression.
        rpn_nms_iou: proposals of one level that overlap a better one by more are suppressed.

        roi_canonical_px: a box of this side is pooled from P4, half of it from P3 (arXiv 1612.03144, Eq. 1).
        box_roi_cells, mask_roi_cells: side of the pooled map; masks are predicted at twice theirs.
        box_convs, mask_convs: 3x3 convolutions with norm and activation of these heads.
        box_features_per_channel: the box head's hidden fully connected layer has this times pyramid_channels.
        box_foreground_iou: a proposal is an object from here on, else background.
        box_samples, box_positive_fraction: proposals that the loss is taken of, and how many objects at most.
        box_delta_weights: the regression targets (dx, dy, dw, dh) are multiplied by these.
        mask_threshold: a pixel is the object's from this probability on.

        retinanet_convs: 3x3 convolutions with norm and activation of each of the two subnets.
        retinanet_foreground_iou, retinanet_background_iou: as in the region proposal head.
        focal_alpha, focal_gamma: of the focal loss (arXiv 1708.02002).
        prior_probability: of every class at the start.
        retinanet_candidates: best predictions per level before suppression.
        loss_normalizer_momentum, loss_normalizer_start: RetinaNet's losses are divided by a running mean of
            the number of object anchors per batch of one process.

        score_threshold: detections with a lower score are dropped.
        nms_iou: detections that overlap a better one of their class by more are suppressed.
        detections: at most so many are returned.
    """

    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisible_px: int = 32
    pyramid_channels: int = 256
    smallest_anchor_px: float = 32.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    retinanet_anchors_per_octave: int = 3

    rpn_convs: int = 2
    rpn_foreground_iou: float = 0.7
    rpn_background_iou: float = 0.3
    rpn_samples: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_candidates_train: int = 2000
    rpn_candidates_test: int = 1000
    rpn_proposals_train: int = 1000
    rpn_proposals_test: int = 1000
    rpn_nms_iou: float = 0.7

    roi_canonical_px: float = 224.0
    box_roi_cells: int = 7
    mask_roi_cells: int = 14
    box_convs: int = 4
    mask_convs: int = 4
    box_features_per_channel: int = 4
    box_foreground_iou: float = 0.5
    box_samples: int = 512
    box_positive_fraction: float = 0.25
    box_delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    mask_threshold: float = 0.5

    retinanet_convs: int = 4
    retinanet_foreground_iou: float = 0.5
    retinanet_background_iou: float = 0.4
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    prior_probability: float = 0.01
    retinanet_candidates: int = 1000
    loss_normalizer_momentum: float = 0.9
    loss_normalizer_start: float = 100.0

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100

    def __post_init__(self) -> None:
        """Check what a run may want to change.

        Raises:
            ValueError: a width, a size or a count that is not positive.
        """
        for name in ("pyramid_channels", "smallest_anchor_px", "size_divisible_px", "detections"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"detector recipe: {name} is {value!r}, expected a positive number")

    @property
    def box_features(self) -> int:
        """Width of the box head's hidden fully connected layer."""
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

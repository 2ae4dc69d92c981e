"""Image classifiers: timm's networks with their activations replaced."""

from collections.abc import Callable, Sequence

from torch import nn

from pwlu import ReplacementReport

from .activations import put_activations
from .timm_networks import check_timm_name, create_network


def build_classifier(
    name: str,
    make: Callable[..., nn.Module] | None,
    *,
    num_classes: int,
    input_size: Sequence[int],
    pretrained: bool = False,
    init: str | None = None,
) -> tuple[nn.Module, ReplacementReport]:
    """Build timm's network `name` and put `make(num_channels)` at its activation sites.

    `make` is what `activation_factory` returns, and `init` "replaced" if PWLUs start as what was there.
    `input_size` is (channels, height, width), for which sites are chosen. `pretrained`: with timm's trained
    weights; a classifier for another number of classes is new. Raises ValueError for an unknown name, a wrong
    number, weights that cannot be had, and where there is nothing to replace.
    """
    # The sites are the same whatever `make` is, so that the rows of Table 2 differ in nothing else.
    check_timm_name(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected >= 1")
    if len(input_size) != 3:
        raise ValueError(f"input_size is {tuple(input_size)}, expected (channels, height, width)")
    model = create_network(name, pretrained=pretrained, num_classes=num_classes, in_chans=input_size[0])
    return model, put_activations(model, make, init=init, input_size=tuple(input_size))

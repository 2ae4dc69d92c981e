"""The networks that tools.latency measures, in the forms that one would deploy."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import pwlu
from models import activation_factory, build_classifier

NUM_CLASSES = 1000
SEED = 0
NOISE = 0.1  # standard deviation of what is added to every parameter of a PWLU
BATCH_NORM_IMAGES = 8
ABSORBED = "pwlu (BatchNorm absorbed)"
DEFAULT_FORM = "table"
DEFAULT = "pwlu (default form)"


def inference_networks(
    network: nn.Module, activation: str, image_size_px: int, forms: Sequence[str]
) -> Iterator[tuple[str, dict[str, nn.Module]]]:
    """Yield (row's name, network in each of `forms`) of a network in eval mode, on the CPU.

    PWLU is folded (`pwlu.fold`); then also with BatchNorms absorbed; and, where another form is asked for,
    also as the default one. The other activations have one form.

    Raises:
        ValueError: a network whose BatchNorms cannot be absorbed.
    """
    if activation != "pwlu":
        yield activation, dict.fromkeys(forms, network)
        return
    yield activation, {form: pwlu.fold(network, form=form) for form in forms}
    absorbing = partial(
        pwlu.fold, network, absorb_batch_norm=True, input_size=(3, image_size_px, image_size_px)
    )
    yield ABSORBED, {form: absorbing(form=form) for form in forms}
    if any(form != DEFAULT_FORM for form in forms):
        yield DEFAULT, {form: pwlu.fold(network) for form in forms if form != DEFAULT_FORM}


def training_form(name: str, activation: str, image_size_px: int) -> nn.Module:
    """Return timm's network `name` in eval mode, on the CPU, with PWLUs that are no ReLUs, as if trained."""
    torch.manual_seed(SEED)
    size = (3, image_size_px, image_size_px)
    make = activation_factory(activation)
    network, _ = build_classifier(name, make, num_classes=NUM_CLASSES, input_size=size)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, pwlu.PWLU):
                for parameter in module.parameters():
                    parameter.add_(NOISE * torch.randn_like(parameter))
    # With its own statistics every layer has values of size 1, which reach every interval.
    update_bn([torch.randn(BATCH_NORM_IMAGES, *size)], network)
    return network.eval()

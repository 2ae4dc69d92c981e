"""Training the activations alone: which parameters then stay, and which modules keep their statistics."""

from collections.abc import Callable, Iterator

from torch import nn


def freeze_all_but(model: nn.Module, is_activation: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """Let nothing of the model learn but the activations' parameters.

    Return the modules outside of them that collect statistics in training mode (batch normalisation), which
    are to be in evaluation mode in every step.
    """
    outside = list(_outside(model, is_activation))
    learning = {
        parameter for module in model.modules() if is_activation(module) for parameter in module.parameters()
    }
    for module in outside:
        for parameter in module.parameters(recurse=False):
            # Also so that DistributedDataParallel does not wait for its gradient.
            parameter.requires_grad_(parameter in learning)
    return [module for module in outside if _collects_statistics(module)]


def _collects_statistics(module: nn.Module) -> bool:
    # Of torch, timm and detectron2: all name their buffers so, and have None where they collect nothing.
    named = module.named_buffers(recurse=False)
    return any(name.startswith("running_") for name, _ in named)


def _outside(module: nn.Module, is_activation: Callable[[nn.Module], bool]) -> Iterator[nn.Module]:
    if not is_activation(module):
        yield module
        for child in module.children():
            yield from _outside(child, is_activation)

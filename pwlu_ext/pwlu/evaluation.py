"""Forward passes that leave a model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .starting import has_values


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; restore every module's training flag and every buffer at the end."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)  # a model's own train() may drop what eval mode cached
        for module, flag in flags:
            module.training = flag
        for owner, name, buffer, version, value in buffers:
            owner[name] = buffer
            if buffer._version != version or _differ(buffer, value):
                buffer.copy_(value)


def _differ(buffer: Tensor, value: Tensor) -> bool:
    # F.batch_norm does not count what it writes as a version.
    return has_values(buffer) and buffer.layout == torch.strided and not torch.equal(buffer, value)

"""Forward passes that leave a model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
            if buffer._version != version:
                buffer.copy_(value)

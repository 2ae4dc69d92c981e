"""Networks whose PWLUs compute the BatchNorms before them."""

from collections.abc import Callable, Sequence

from torch import nn

from pwlu import PWLU, fuse_batch_norm


def fuse(
    root: nn.Module,
    input_size: Sequence[int],
    is_batch_norm: Callable[[nn.Module], bool] | None = None,
) -> str:
    """Let the PWLUs of `root` compute the BatchNorms before them; return what came of it in a sentence.

    Where there is no PWLU it is empty.
    """
    if not any(isinstance(module, PWLU) for module in root.modules()):
        return ""
    try:
        return fuse_batch_norm(root, input_size=input_size, is_batch_norm=is_batch_norm).summary()
    except ValueError as error:
        return f"runtime.fuse_batch_norm: {str(error).splitlines()[0].removesuffix(':')}"

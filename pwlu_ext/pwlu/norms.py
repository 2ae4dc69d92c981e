"""The BatchNorms that can become part of the PWLU behind them."""

from torch import nn

PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# timm's BatchNorms that hold the activation they call, by name: this package must not import timm.
_WITH_ACTIVATION = ("BatchNormAct2d", "SyncBatchNormAct")


def calls_its_activation(kind: type) -> bool:
    """Return True for timm's BatchNorms whose forward ends with a call of their own child `act`."""
    return kind.__module__.startswith("timm.") and kind.__name__ in _WITH_ACTIVATION

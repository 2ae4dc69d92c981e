"""Automatic mixed precision."""

import contextlib
from dataclasses import dataclass

import torch

from pwlu.suggestion import expected_one_of

_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the forward pass: `mode` is "off" (float32), "bf16" or "fp16"."""

    mode: str
    device: torch.device

    def __post_init__(self) -> None:
        if self.mode not in _DTYPES:
            raise ValueError(expected_one_of("amp", self.mode, _DTYPES))
        if self.mode == "bf16" and self.device.type == "cuda":
            with torch.cuda.device(self.device):
                if not torch.cuda.is_bf16_supported(including_emulation=False):
                    name = torch.cuda.get_device_name(self.device)
                    raise ValueError(f"amp: {name} has no bfloat16 arithmetic; use runtime.amp=fp16 or off")

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        dtype = _DTYPES[self.mode]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the scaler of gradients, which works for fp16 alone: small ones vanish there."""
        return torch.amp.GradScaler(self.device.type, enabled=self.mode == "fp16")

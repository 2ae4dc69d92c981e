import contextlib

import pytest
import torch
from torch import nn

from engine.amp import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mode", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_forward_runs_in_the_chosen_arithmetic(mode: str, dtype: torch.dtype) -> None:
    precision = Precision(mode, CPU)
    with precision.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert precision.scaler().is_enabled() == (mode == "fp16")


def test_bf16_on_a_gpu_without_it_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    with pytest.raises(
        ValueError, match="Tesla V100 has no bfloat16 arithmetic; use runtime.amp=fp16 or off"
    ):
        Precision("bf16", torch.device("cuda", 0))
    Precision("fp16", torch.device("cuda", 0))

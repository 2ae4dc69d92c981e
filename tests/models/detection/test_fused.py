"""Detectors whose PWLUs compute the BatchNorms before them."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from models import is_synchronized
from models.detection import ARCHITECTURES, PROBE_SIZE
from pwlu import fuse_batch_norm
from tests.models.detection import tiny


def step(probe: nn.Module, image: Tensor) -> dict[str, Any]:
    outputs = [tensor for tensor in tree_leaves(probe(image)) if isinstance(tensor, Tensor)]
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    gradients = {name: p.grad for name, p in probe.named_parameters() if p.grad is not None}
    return {
        **gradients,
        **{str(i): output for i, output in enumerate(outputs)},
        **dict(probe.named_buffers()),
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused_equals_apart(architecture: str) -> None:
    """Outputs, gradients and running statistics; in some heads other operators are between the two."""
    apart = tiny.detector(architecture).double().probe()
    fused = copy.deepcopy(apart)
    report = fuse_batch_norm(fused, input_size=PROBE_SIZE, is_batch_norm=is_synchronized)
    alone = [site.pwlu for site in report.sites if not site.norms]
    assert all(name.startswith(("head", "rpn", "mask_predictor")) for name in alone), report
    assert len(alone) < len(report.sites) / 2
    image = torch.randn(2, *PROBE_SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, actual = step(apart, image), step(fused, image)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-8, atol=1e-8, msg=name)

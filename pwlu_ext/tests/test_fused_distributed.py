"""Fused SyncBatchNorms on two processes (gloo): their statistics are those of one process with all data."""

from pathlib import Path

import torch

from pwlu_ext.tests.fused_networks import assert_alike, block
from pwlu_ext.tests.fused_ranks import WAYS
from pwlu_ext.tests.helpers import two_ranks_and_one


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Weights and running statistics, with unequal shares, one of them empty; apart in the one process."""
    results = two_ranks_and_one("pwlu_ext.tests.fused_ranks", tmp_path)
    first, second, alone = (results[name] for name in ("0_of_2", "1_of_2", "0_of_1"))
    start = block().state_dict()
    for name in ("0.act2.points", "0.bn2.weight", "0.downsample.1.running_var"):
        assert not torch.allclose(alone["alone"][name], start[name]), name
    for way in WAYS:
        assert all(torch.equal(second[way][name], value) for name, value in first[way].items())
        assert_alike(first[way], alone["alone"])

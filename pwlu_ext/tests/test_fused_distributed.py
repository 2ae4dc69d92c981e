"""Fused SyncBatchNorms on two processes (gloo): their statistics are those of one process with all data."""

import sys
from pathlib import Path
from subprocess import Popen

import torch

from pwlu_ext.tests.fused_networks import assert_alike, block
from pwlu_ext.tests.fused_ranks import WAYS
from pwlu_ext.tests.helpers import ROOT, environment_of_one_thread


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Weights and running statistics, with unequal shares, one of them empty; apart in the one process."""
    command = [sys.executable, "-m", "pwlu_ext.tests.fused_ranks", str(tmp_path)]
    processes = [
        Popen([*command, str(rank), str(size)], cwd=ROOT, env=environment_of_one_thread())
        for rank, size in ((0, 2), (1, 2), (0, 1))
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0, 0]
    first, second, alone = (torch.load(tmp_path / f"{name}.pt") for name in ("0_of_2", "1_of_2", "0_of_1"))
    start = block().state_dict()
    for name in ("0.act2.points", "0.bn2.weight", "0.downsample.1.running_var"):
        assert not torch.allclose(alone["alone"][name], start[name]), name
    for way in WAYS:
        assert all(torch.equal(second[way][name], value) for name, value in first[way].items())
        assert_alike(first[way], alone["alone"])

"""The examples run, and learn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_one_process_learns_the_digits(name: str) -> None:
    printed = run(f"examples/{name}.py")
    assert float(re.findall(r"([\d.]+)% of 360 test images", printed)[-1]) > 80


def test_a_trained_network_learns_its_activations() -> None:
    printed = run("examples/finetune.py")
    trained, converted, tuned = (float(share) for share in re.findall(r": ([\d.]+)%", printed))
    assert trained > 90 and abs(converted - trained) < 1 and tuned >= converted
    assert re.search(r"calibrated 2 of 2 sites on 45 .* moved by at most 0\.\d", printed)


def test_two_processes_learn_in_mixed_precision() -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    printed = run(*torchrun, "examples/ddp_amp.py")
    losses = [float(loss) for loss in re.findall(r"mean loss ([\d.]+)", printed)]
    assert printed.count("boundaries realigned") == 1
    assert len(losses) == 4 and losses[-1] < 0.5 * losses[0]


def test_what_is_deployed_computes_the_same() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    rows = re.findall(r"^(\w+) +form=(.+?) +([\d.]+)% +([\d.]+)% +(\S+)", run("examples/deploy.py"), re.M)
    assert len(rows) == 5
    for runtime, form, accuracy, same_top_1, distance in rows:
        exact = "max_error" not in form
        assert float(accuracy) > 80 and float(same_top_1) >= (100 if exact else 95), (runtime, form)
        assert float(distance) < (1e-5 if exact else 0.02), (runtime, form)

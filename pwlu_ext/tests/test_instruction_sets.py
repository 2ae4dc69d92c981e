"""Every instruction set that this processor has, each in a process of its own: the choice is made once."""

from collections.abc import Callable

import pytest
import torch

from pwlu import build_info
from pwlu_ext.tests.helpers import run_python

SUITES = [
    *("test_operator.py", "test_edge_cases.py", "test_knots.py", "test_folded_operator.py"),
    "test_fused_operator.py",
]
# From the best on, with torch's own word on whether this processor has it.
SETS: dict[str, Callable[[], bool]] = {
    "avx512_bf16": torch.cpu._is_avx512_bf16_supported,
    "avx512": torch.cpu._is_avx512_supported,
    "avx2": torch.cpu._is_avx2_supported,
    "plain": lambda: True,
}


def test_the_best_one_is_chosen() -> None:
    code = "import pwlu; print(pwlu.build_info()['cpu_isa'])"
    done = run_python("-c", code, PWLU_CPU_ISA="")
    assert done.stdout.strip() == next(name for name in SETS if SETS[name]()), done.stderr


@pytest.mark.parametrize("name", SETS)
def test_instruction_set(name: str) -> None:
    """The tests of the operator once more, for the instruction sets that this process does not use."""
    if name == build_info()["cpu_isa"]:
        pytest.skip(f"{name} is what all other tests use here")
    if not SETS[name]():
        pytest.skip(f"this processor has no {name}")
    files = [f"pwlu_ext/tests/{suite}" for suite in SUITES]
    done = run_python("-m", "pytest", "-qp", "no:cacheprovider", "-k", "not cuda", *files, PWLU_CPU_ISA=name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_name_is_an_error() -> None:
    code = "import torch, pwlu; pwlu.PWLU(1)(torch.zeros(1))"
    done = run_python("-c", code, PWLU_CPU_ISA="sse9")
    assert done.returncode != 0
    assert "ValueError: pwlu: PWLU_CPU_ISA is 'sse9', expected" in done.stderr
    assert "plain on this processor" in done.stderr

"""Every instruction set that this processor has, each in a process of its own: the choice is made once."""

import pytest
import torch

from pwlu import build_info
from pwlu_ext.tests.helpers import run_python

SUITES = ["test_operator.py", "test_edge_cases.py", "test_knots.py"]
# From the best on, with what torch calls the processors that have it.
SETS = {"avx512": ["AVX512"], "avx2": ["AVX512", "AVX2"], "plain": [torch.backends.cpu.get_cpu_capability()]}


def is_here(name: str) -> bool:
    return torch.backends.cpu.get_cpu_capability() in SETS[name]


def test_the_best_one_is_chosen() -> None:
    code = "import pwlu; print(pwlu.build_info()['cpu_isa'])"
    done = run_python("-c", code, PWLU_CPU_ISA="")
    assert done.stdout.strip() == next(filter(is_here, SETS)), done.stderr


@pytest.mark.parametrize("name", SETS)
def test_instruction_set(name: str) -> None:
    """The tests of the operator once more, for the instruction sets that this process does not use."""
    if name == build_info()["cpu_isa"]:
        pytest.skip(f"{name} is what all other tests use here")
    if not is_here(name):
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

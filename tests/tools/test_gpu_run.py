"""No process outlives the step of tools.gpu_check that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import gpu_run
from tools.gpu_steps import ROOT


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(process: int) -> bool:
    """Whether a process is gone within some seconds."""
    for _ in range(100):
        if not runs(process):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_check_that_is_ended_ends_its_step(tmp_path: Path, number: signal.Signals) -> None:
    code = f"""if True:
        import signal, sys
        from tools import gpu_check, gpu_results
        from tools.gpu_steps import Step
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        command = ("sh", "-c", "echo $$ > {tmp_path}/id; exec sleep 99")
        only = Step("sleeps", 60, command, command, gpu_results.nothing)
        gpu_check.all_steps = lambda architecture: (only,)
        sys.exit(gpu_check.main(["--dry-run", "--output", "{tmp_path}/gpu.json"]))
    """
    more = {"TMPDIR": str(tmp_path)}
    check = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **more}, stderr=subprocess.DEVNULL
    )
    file = tmp_path / "id"
    try:
        while check.poll() is None and not (file.exists() and file.read_text().strip()):
            time.sleep(0.05)
        sleeper = int(file.read_text())
        assert runs(sleeper)
        check.send_signal(number)
        assert check.wait(60) in (143, -signal.SIGINT)
    finally:
        check.kill()
    assert ends(sleeper)
    assert not list(tmp_path.glob("gpu_check_*"))


def test_what_a_step_has_started_ends_with_it(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    )
    code, output = gpu_run.run(
        [sys.executable, "-c", f"{child}; print(p.pid)"], tmp_path / "log", {"PATH": "/usr/bin:/bin"}, 30
    )
    assert code == 0
    assert ends(int(output))

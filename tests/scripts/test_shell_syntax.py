import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL_FILES = sorted(
    [
        *ROOT.glob("scripts/*.sh"),
        *ROOT.glob("scripts/*.sbatch"),
        ROOT / ".ci" / "run",
        ROOT / "tests" / "scripts" / "stubs" / "scontrol",
    ]
)


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "shellcheck is missing: install requirements-dev.txt"
    checked = subprocess.run(
        [shellcheck, "--external-sources", *SHELL_FILES], cwd=ROOT, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("name", ["train_imagenet", "train_coco", "sweep"])
def test_the_batch_script_asks_for_the_warning_and_the_requeue(name: str) -> None:
    text = (ROOT / "scripts" / f"{name}.sbatch").read_text()
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    warning_s = next(int(line.split("@")[1]) for line in directives if line.startswith("--signal=B:USR1@"))
    save_s = int(text.split("readonly SAVE_SECONDS=")[1].split()[0])
    assert save_s < warning_s
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(directives)
    # sbatch reads its directives only up to the first command.
    first_command = text.index("set -euo pipefail")
    assert "#SBATCH" not in text[first_command:]

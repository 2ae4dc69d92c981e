"""A cluster of stubs: the batch script runs as under SLURM, with srun, scontrol and torchrun replaced."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUBS = Path(__file__).resolve().parent / "stubs"
PATIENCE_S = 100  # far above what any step takes; only a hang reaches it


class Cluster:
    """A repository, the stubs on PATH and the environment of a SLURM job, all below one folder."""

    def __init__(
        self,
        folder: Path,
        stubs: tuple[str, ...] = ("srun", "scontrol", "torchrun"),
        trainer: str = "train_imagenet",
    ) -> None:
        # Spaces in both paths: every expansion in the scripts has to be quoted.
        self.repository = folder / "the repository"
        self.log = folder / "the log"
        self.spool = folder / "spool"
        self.bin = folder / "bin"
        for created in (self.repository / "configs", self.log, self.spool, self.bin):
            created.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.repository / "scripts")
        (self.repository / f"{trainer}.py").write_text("")
        (self.repository / "configs" / "tiny.yaml").write_text("")
        # SLURM runs a copy under another name in another folder.
        shutil.copy(ROOT / "scripts" / f"{trainer}.sbatch", self.spool / "slurm_script")
        for name in stubs:
            shutil.copy(STUBS / name, self.bin / name)
            (self.bin / name).chmod(0o755)
        self.jobs: list[subprocess.Popen[str]] = []
        self.ready = folder / "ready"
        os.mkfifo(self.ready)
        # Opened for reading and writing, so that neither side waits for the other to open it.
        self._ready_descriptor = os.open(self.ready, os.O_RDWR)
        self.environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "SLURM_JOB_ID": "4711",
            "SLURM_NNODES": "1",
            "SLURM_JOB_NODELIST": "node01",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(self.repository),
            "STUB_LOG": str(self.log),
            "STUB_READY": str(self.ready),
            "STUB_TRAINER": "FINISHED 0",
        }

    def start(self, *arguments: str, **environment: str | None) -> subprocess.Popen[str]:
        """Start the batch script; an environment value of None removes that variable."""
        merged = {**self.environment, **environment}
        job = subprocess.Popen(
            ["bash", str(self.spool / "slurm_script"), *arguments],
            cwd=self.spool,
            env={name: value for name, value in merged.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a job of its own, to be signalled as a whole
        )
        self.jobs.append(job)
        return job

    def finish(self, job: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the batch script: its exit code and all it printed."""
        printed, _ = job.communicate(timeout=PATIENCE_S)
        return job.returncode, printed

    def submit(self, *arguments: str, **environment: str | None) -> tuple[int, str]:
        """Run the batch script to its end: exit code and output."""
        return self.finish(self.start(*arguments, **environment))

    def wait_until_ready(self, processes: int) -> None:
        """Return once so many trainers have announced that they wait for a signal."""
        announced = b""
        while len(announced) < processes:
            readable, _, _ = select.select([self._ready_descriptor], [], [], PATIENCE_S)
            assert readable, f"{len(announced)} of {processes} trainers became ready"
            announced += os.read(self._ready_descriptor, processes)

    def srun_calls(self) -> list[dict[str, list[str]]]:
        """Options and command of every srun."""
        path = self.log / "srun.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def torchrun_call(self, node: int = 0) -> tuple[dict[str, str], list[str]]:
        """Options of the torchrun of one node, and the trainer with its arguments."""
        arguments = json.loads((self.log / f"torchrun.{node}.json").read_text())
        count = next(i for i, argument in enumerate(arguments) if not argument.startswith("--"))
        options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[:count])
        return options, arguments[count:]

    def requeued(self) -> list[str]:
        """The calls of `scontrol requeue`."""
        path = self.log / "scontrol.log"
        calls = path.read_text().splitlines() if path.exists() else []
        return [call for call in calls if call.startswith("requeue")]

    def marker(self, name: str) -> Path:
        """A marker file in the default run folder of configs/tiny.yaml."""
        return self.repository / "runs" / "tiny" / name

    def close(self) -> None:
        """End what a failed test has left running, and release the fifo."""
        for job in self.jobs:
            # The group may outlive the batch script; it is gone where the test passed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        os.close(self._ready_descriptor)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose torchrun is a stub too."""
    with contextlib.closing(Cluster(tmp_path)) as made:
        yield made


@pytest.fixture
def coco_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The same for the detectors' batch script."""
    with contextlib.closing(Cluster(tmp_path, trainer="train_coco")) as made:
        yield made


@pytest.fixture
def torch_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with the real torchrun of this environment."""
    with contextlib.closing(Cluster(tmp_path, stubs=("srun", "scontrol"))) as made:
        made.environment["PATH"] = f"{made.bin}:{Path(sys.executable).parent}:/usr/bin:/bin"
        yield made

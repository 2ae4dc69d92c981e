import os
import signal
import socket

CONFIG = "configs/tiny.yaml"

# The smallest trainer that keeps the contract of scripts/slurm.sh: all ranks stop at the same step.
TRAINER = """
import os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist

received = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: received.append(signal.Signals(number).name))
folder = Path(next(word for word in sys.argv if word.startswith("output=")).removeprefix("output="))
folder.mkdir(parents=True, exist_ok=True)
dist.init_process_group("gloo")
with open(os.environ["STUB_READY"], "w") as ready:
    ready.write("r")
stop = torch.zeros(1)
launcher = os.getppid()
while not stop:
    if os.getppid() != launcher:
        sys.exit("torchrun is gone")  # the orphan that --signals-to-handle prevents
    stop += len(received)
    dist.all_reduce(stop)
(folder / f"saved.{dist.get_rank()}").write_text(",".join(received))
dist.barrier()
if dist.get_rank() == 0:
    (folder / "REQUEUE").touch()
dist.destroy_process_group()
"""


def free_job_number() -> int:
    """A job number whose rendezvous port (15000 + number % 15000) is free."""
    for number in range(os.getpid() % 10000, 15000):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", 15000 + number)) != 0:
                return number
    raise RuntimeError("no free port between 15000 and 30000")


def test_the_warning_passes_through_torchrun_on_two_nodes(torch_cluster) -> None:
    (torch_cluster.repository / "train_imagenet.py").write_text(TRAINER)
    number = free_job_number()
    job = torch_cluster.start(
        CONFIG,
        SLURM_JOB_ID=str(number),
        SLURM_NNODES="2",
        SLURM_JOB_NODELIST="localhost,localhost",
        NPROC_PER_NODE="1",
        OMP_NUM_THREADS="1",
    )
    torch_cluster.wait_until_ready(2)
    os.kill(job.pid, signal.SIGUSR1)
    code, printed = torch_cluster.finish(job)
    assert code == 0, printed
    saved = [torch_cluster.marker(f"saved.{rank}").read_text() for rank in range(2)]
    # Each rank was told by its own torchrun, or by its peer before the signal came.
    assert "SIGUSR1" in saved and set(saved) <= {"SIGUSR1", ""}, printed
    assert torch_cluster.requeued() == [f"requeue {number}"]

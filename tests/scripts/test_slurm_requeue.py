import os
import signal

import pytest

CONFIG = "configs/tiny.yaml"


@pytest.mark.parametrize(
    ("trainer", "exit_code", "requeued"),
    [
        ("FINISHED 0", 0, []),
        ("REQUEUE 1", 0, ["requeue 4711"]),  # torchrun exits with 1 whenever it was signalled
        ("REQUEUE 0", 0, ["requeue 4711"]),
        ("REQUEUE FINISHED 0", 0, []),
        ("3", 3, []),
        ("FINISHED 3", 3, []),
        ("0", 0, []),
    ],
)
def test_it_requeues_exactly_when_the_trainer_asks_for_it(cluster, trainer, exit_code, requeued) -> None:
    code, printed = cluster.submit(CONFIG, STUB_TRAINER=trainer)
    assert code == exit_code, printed
    assert cluster.requeued() == requeued


def test_a_marker_of_an_earlier_start_does_not_requeue_a_crash(cluster) -> None:
    cluster.marker("REQUEUE").parent.mkdir(parents=True)
    cluster.marker("REQUEUE").touch()
    code, printed = cluster.submit(CONFIG, STUB_TRAINER="5")
    assert code == 5, printed
    assert cluster.requeued() == []


def test_a_requeue_that_fails_is_an_error(cluster) -> None:
    code, printed = cluster.submit(CONFIG, STUB_TRAINER="REQUEUE 1", STUB_SCONTROL_FAILS="requeue")
    assert code == 2
    assert "job 4711 could not be requeued: submit the same command again" in printed


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_warning_to_the_batch_script_reaches_every_node(cluster, nodes: int) -> None:
    names = ",".join(f"n{number}" for number in range(nodes))
    job = cluster.start(
        CONFIG, SLURM_NNODES=str(nodes), SLURM_JOB_NODELIST=names, STUB_TRAINER="wait REQUEUE 1"
    )
    cluster.wait_until_ready(nodes)
    os.kill(job.pid, signal.SIGUSR1)  # --signal=B:USR1 signals this shell and nothing else
    code, printed = cluster.finish(job)
    assert code == 0, printed
    assert [(cluster.log / f"signal.{node}").read_text() for node in range(nodes)] == ["SIGUSR1"] * nodes
    assert cluster.requeued() == ["requeue 4711"]


def test_a_crash_after_the_warning_is_a_failure_with_its_exit_code(cluster) -> None:
    job = cluster.start(CONFIG, STUB_TRAINER="wait 7")
    cluster.wait_until_ready(1)
    os.kill(job.pid, signal.SIGUSR1)
    code, printed = cluster.finish(job)
    assert code == 7, printed
    assert cluster.requeued() == []


def test_a_cancelled_job_saves_and_stays_cancelled(cluster) -> None:
    job = cluster.start(CONFIG, STUB_TRAINER="wait REQUEUE 1")
    cluster.wait_until_ready(1)
    os.killpg(job.pid, signal.SIGTERM)  # scancel signals all processes of the job
    code, printed = cluster.finish(job)
    assert code == 143, printed
    assert "submit the same command again" in printed
    assert cluster.marker("REQUEUE").exists()
    assert cluster.requeued() == []

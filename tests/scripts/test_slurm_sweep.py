from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.conftest import Cluster

RUNS = [
    ["train_imagenet.py", "configs/tiny.yaml", "seed=0", "output=runs/a"],
    ["train_coco.py", "configs/tiny.yaml", "data.root=/the images", "output=runs/the second"],
]


@pytest.fixture
def sweep_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that runs scripts/sweep.sbatch, with a list of two runs."""
    made = Cluster(tmp_path, trainer="sweep")
    (made.repository / "array.tsv").write_text("".join("\t".join(run) + "\n" for run in RUNS))
    yield made
    made.close()


@pytest.mark.parametrize("task", [0, 1])
def test_a_task_trains_the_run_of_its_line(sweep_cluster: Cluster, task: int) -> None:
    code, printed = sweep_cluster.submit("array.tsv", SLURM_ARRAY_TASK_ID=str(task))
    assert code == 0, printed
    trainer, config, setting, output = RUNS[task]
    options, started = sweep_cluster.torchrun_call()
    assert options["nproc-per-node"] == "4"
    assert started == [trainer, "--config", config, output, setting]
    assert (sweep_cluster.repository / output.removeprefix("output=") / "FINISHED").exists()


def test_a_task_that_saved_is_requeued(sweep_cluster: Cluster) -> None:
    code, printed = sweep_cluster.submit(
        "array.tsv", SLURM_ARRAY_TASK_ID="1", STUB_TRAINER="REQUEUE 1", SLURM_JOB_ID="4712"
    )
    assert code == 0, printed
    assert sweep_cluster.requeued() == ["requeue 4712"]


@pytest.mark.parametrize(
    ("words", "task", "sentence"),
    [
        (["array.tsv"], None, "SLURM_ARRAY_TASK_ID: is not set: submit this file with sbatch --array=0-1"),
        (["array.tsv"], "2", "array.tsv has 2 runs, numbered from 0, but SLURM_ARRAY_TASK_ID is 2"),
        (["other.tsv"], "0", "'other.tsv' is no list of runs; 'python -m tools.sweep --launcher slurm'"),
        ([], "0", "'' is no list of runs"),
    ],
)
def test_a_wrong_submission_is_explained(
    sweep_cluster: Cluster, words: list[str], task: str | None, sentence: str
) -> None:
    code, printed = sweep_cluster.submit(*words, SLURM_ARRAY_TASK_ID=task)
    assert code != 0 and sentence in printed
    assert sweep_cluster.srun_calls() == []

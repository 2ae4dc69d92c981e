import pytest

CONFIG = "configs/tiny.yaml"


def test_one_node(cluster) -> None:
    code, printed = cluster.submit(CONFIG, "data.root=/sets/image net", "epochs=2", SLURM_CPUS_PER_TASK="32")
    assert code == 0, printed
    (step,) = cluster.srun_calls()
    assert {"--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--cpus-per-task=32"} <= set(step["options"])
    options, trainer = cluster.torchrun_call()
    assert options["nnodes"] == "1"
    assert options["nproc-per-node"] == "4"
    assert options["rdzv-backend"] == "c10d"
    assert options["rdzv-endpoint"] == "node01:19711"
    assert options["rdzv-id"] == "4711"
    assert options["rdzv-conf"] == "is_host=1"
    expected = ["train_imagenet.py", "--config", CONFIG, "output=runs/tiny"]
    assert trainer == [*expected, "data.root=/sets/image net", "epochs=2"]
    assert cluster.requeued() == []


def test_many_nodes_share_one_rendezvous_with_one_host(cluster) -> None:
    nodes = 3
    names = ",".join(f"gpu-{number}" for number in range(5, 5 + nodes))
    code, printed = cluster.submit(CONFIG, SLURM_NNODES=str(nodes), SLURM_JOB_NODELIST=names)
    assert code == 0, printed
    (step,) = cluster.srun_calls()
    assert {f"--nodes={nodes}", f"--ntasks={nodes}", "--kill-on-bad-exit=0"} <= set(step["options"])
    # Without SLURM_CPUS_PER_TASK the step gets the CPUs of the job.
    assert not any(option.startswith("--cpus-per-task") for option in step["options"])
    calls = [cluster.torchrun_call(node) for node in range(nodes)]
    assert [options["nnodes"] for options, _ in calls] == [str(nodes)] * nodes
    assert [options["rdzv-endpoint"] for options, _ in calls] == ["gpu-5:19711"] * nodes
    assert [options["rdzv-conf"] for options, _ in calls] == ["is_host=1"] + ["is_host=0"] * (nodes - 1)
    assert [trainer for _, trainer in calls] == [calls[0][1]] * nodes


def test_detectors_have_their_own_trainer(coco_cluster) -> None:
    code, printed = coco_cluster.submit(CONFIG, "data.root=/sets/coco", SLURM_GPUS_ON_NODE="8")
    assert code == 0, printed
    options, trainer = coco_cluster.torchrun_call()
    assert options["nproc-per-node"] == "8"
    assert trainer == ["train_coco.py", "--config", CONFIG, "output=runs/tiny", "data.root=/sets/coco"]


def test_an_output_of_the_user_is_kept_and_holds_the_markers(cluster) -> None:
    code, printed = cluster.submit(
        CONFIG, "output=elsewhere", "seed=1", "output=my runs/a", STUB_TRAINER="REQUEUE 1"
    )
    assert code == 0, printed
    _, trainer = cluster.torchrun_call()
    assert trainer[3:] == ["output=my runs/a", "seed=1"]
    assert (cluster.repository / "my runs" / "a" / "REQUEUE").exists()
    assert cluster.requeued() == ["requeue 4711"]


def test_the_number_of_processes_can_be_given_for_nodes_without_gpus(cluster) -> None:
    code, printed = cluster.submit(CONFIG, SLURM_GPUS_ON_NODE=None, NPROC_PER_NODE="2")
    assert code == 0, printed
    assert cluster.torchrun_call()[0]["nproc-per-node"] == "2"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_GPUS_ON_NODE": None}, "SLURM_GPUS_ON_NODE is ''. Ask for GPUs (sbatch"),
        ({"SLURM_GPUS_ON_NODE": "0"}, "SLURM_GPUS_ON_NODE is '0'"),
        ({"NPROC_PER_NODE": "four"}, "NPROC_PER_NODE is 'four'"),
        ({"SLURM_NNODES": None}, "SLURM_NNODES is not set: submit this script with sbatch"),
        ({"SLURM_JOB_ID": None}, "SLURM_JOB_ID is not set: submit this script with sbatch"),
        ({"SLURM_JOB_NODELIST": ""}, "SLURM_JOB_NODELIST is not set: submit this script with sbatch"),
        ({"SLURM_SUBMIT_DIR": None}, "SLURM_SUBMIT_DIR: is not set: submit this file with sbatch"),
        ({"SLURM_SUBMIT_DIR": "/usr"}, "call sbatch in the root of the repository"),
        ({"STUB_SCONTROL_FAILS": "show"}, "scontrol could not expand the list of nodes 'node01'"),
    ],
)
def test_a_missing_size_is_explained_and_nothing_starts(cluster, environment, message: str) -> None:
    code, printed = cluster.submit(CONFIG, **environment)
    assert code != 0
    assert message in printed
    assert cluster.srun_calls() == []


def test_a_missing_configuration_is_explained(cluster) -> None:
    for words, name in ((["configs/huge.yaml"], "configs/huge.yaml"), ([], "")):
        code, printed = cluster.submit(*words)
        assert code == 2 and f"'{name}' is no configuration file; usage: sbatch" in printed
    assert cluster.srun_calls() == []


def test_without_an_active_environment_the_one_make_built_is_used(cluster) -> None:
    built = cluster.repository / ".venv" / "bin"
    built.mkdir(parents=True)
    (cluster.bin / "torchrun").rename(built / "torchrun")
    code, printed = cluster.submit(CONFIG)
    assert code == 0, printed
    (built / "torchrun").unlink()
    code, printed = cluster.submit(CONFIG)
    assert code == 2 and "torchrun not found: run 'make install'" in printed

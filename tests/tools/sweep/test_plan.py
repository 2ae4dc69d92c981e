from pathlib import Path

import pytest

from tests.tools.sweep_records import write_run
from tools.paper.grid import Run, load_table
from tools.sweep.plan import (
    BROKEN,
    DIVERGED,
    FINISHED,
    NEW,
    assumption,
    plan,
    plan_text,
    published_rate,
    unfinished,
)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return load_table(6).runs("smoke", tmp_path)


def test_states_and_what_is_left(runs: list[Run]) -> None:
    write_run(runs[0], {"top1": 50.0})
    write_run(runs[1], {}, finished=False)
    write_run(runs[2], {}, diverged=True)
    items = plan(runs, images_per_second=1)
    assert [item.state for item in items] == [FINISHED, BROKEN, DIVERGED] + [NEW] * 6
    assert [item.run for item in unfinished(items)] == [runs[1], *runs[3:]]
    text = plan_text(items, assumption(runs[0], 1))
    assert f"{'baseline_seed0':31}  finished                 128       0.036" in text
    assert "Runs: 9; finished: 1; diverged: 1; to do: 7, 896 images, 0.25 GPU-hours" in text
    assert "GPU-hours at 1 training images per second" in text


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_experiment_is_found_before_anything_starts(
    runs: list[Run], finished: bool
) -> None:
    write_run(runs[0], {"top1": 50.0}, finished=finished, optimizer__peak_lr=0.7)
    with pytest.raises(
        ValueError, match="baseline_seed0.* belongs to another experiment: optimizer.peak_lr was 0.7"
    ):
        plan(runs)


def test_the_cost_of_the_papers_recipe(tmp_path: Path) -> None:
    classifier = load_table(2).runs("full", tmp_path)[0]
    detector = load_table(3).runs("full", tmp_path)[0]
    items = plan([classifier, detector])
    assert items[0].images == 100 * 1251 * 1024  # incomplete batches are left out
    assert items[1].images == 270_000 * 16
    # detectron2: 270,000 steps of 0.261 s on 8 GPUs
    assert items[1].hours == pytest.approx(270_000 * 0.261 * 8 / 3600)
    assert "RTX 3090" in assumption(classifier, None)
    small = load_table(2).runs("small", tmp_path)[0]
    assert published_rate(small) == pytest.approx(published_rate(classifier) * (224 / 128) ** 2)

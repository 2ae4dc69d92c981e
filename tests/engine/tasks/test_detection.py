"""Detection as a task: what it announces, and what an evaluation keeps."""

import weakref
from typing import Any

import pytest
import torch
from torch import nn

from engine.amp import Precision
from engine.data.coco import CocoData, CocoOptions, build_coco_data
from engine.processes.distributed import World
from engine.tasks.detection import Detection
from tests.engine.data.coco.coco_files import write_coco


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    root = write_coco(tmp_path_factory.mktemp("coco"))
    options = CocoOptions(root=str(root), shorter_side_px=24, longer_side_px=30, workers=0)
    return build_coco_data(options, with_masks=True, seed=0)


def task(data: CocoData) -> Detection:
    world = World()
    precision = Precision("off", world.device)
    return Detection(data, world, precision, global_batch_size=4, device_batch_size=2)


def test_the_announcement_counts_annotations_that_are_no_targets(data: CocoData) -> None:
    lines = task(data).describe().splitlines()
    assert lines[0] == "12 training and 7 validation images with objects of 3 categories"
    assert lines[1].startswith("15 of the 21 annotations of instances_train2017.json are targets")
    assert lines[1].endswith("no targets: 6 crowds (iscrowd)") and len(lines) == 3


class OneMask(nn.Module):
    """Finds the whole of every image, and knows which of its masks are still somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[weakref.ref[torch.Tensor]] = []
        self.most_alive = 0

    def forward(self, images: Any, original_sizes: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
        self.most_alive = max(self.most_alive, sum(mask() is not None for mask in self.masks))
        ((height, width),) = original_sizes
        mask = torch.ones(1, height, width, dtype=torch.bool)
        self.masks.append(weakref.ref(mask))
        box, score, label = torch.tensor([[0.0, 0, width, height]]), torch.tensor([0.9]), torch.tensor([1])
        return [{"boxes": box, "scores": score, "labels": label, "masks": mask}]


def test_an_evaluation_keeps_no_masks_of_images_done(data: CocoData) -> None:
    model = OneMask()
    evaluation = task(data).evaluate(model, lambda: False)
    assert evaluation is not None and evaluation.metrics["images"] == 7 == len(model.masks)
    assert model.most_alive <= 1  # that of the image before
    height, width, channels = evaluation.pictures["detections"].shape
    assert channels == 3 and width > 4 * 300 and height > 2 * 300  # two rows, of four and of three
    assert [entry["image_id"] for entry in evaluation.results["detections"]] == [
        10 * number for number in range(300, 307)
    ]

"""Real COCO photographs: part of the official annotations, with pycocotools' masks beside ours."""

import numpy as np
import pytest
from pycocotools.coco import COCO

from engine.data.coco import CocoData, CocoOptions, build_coco_data
from engine.data.coco.masks import rasterize
from engine.data.picture import size_of
from tests.engine.data.loading import train_loader
from tests.photographs import needs_photographs, unpack

pytestmark = needs_photographs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    root = unpack("coco_gpu.tar", tmp_path_factory.mktemp("coco"))
    options = CocoOptions(root=str(root), shorter_side_px=200, longer_side_px=333, workers=0)
    return build_coco_data(options, with_masks=True, seed=0)


def test_all_of_it_is_opened(data: CocoData) -> None:
    assert (len(data.train), data.num_train, data.num_val) == (319, 317, 197)
    assert len(data.category_names) == 80
    assert data.category_ids[0] == 1 and data.category_ids[-1] == 90
    assert data.category_names[0] == "person" and data.category_names[-1] == "toothbrush"


def test_masks_and_boxes_are_those_of_pycocotools(data: CocoData) -> None:
    annotations = data.val.annotations
    reference = COCO()
    reference.dataset = data.ground_truth
    reference.createIndex()
    compared = 0
    for index in range(0, len(annotations), 4):
        image_id, size = int(annotations.image_ids[index]), data.val.size(index)
        found = reference.loadAnns(reference.getAnnIds(imgIds=[image_id], iscrowd=False))
        objects = annotations.objects(index)
        masks = rasterize(objects.segmentations, size, size)
        for mask, box, label, annotation in zip(masks, objects.boxes, objects.labels, found, strict=True):
            assert np.array_equal(mask.numpy(), reference.annToMask(annotation))
            assert data.category_ids[label] == annotation["category_id"]
            assert np.allclose(box[2:] - box[:2], annotation["bbox"][2:])
            compared += 1
    assert compared > 300


def test_scaled_and_mirrored_masks_fill_their_boxes(data: CocoData) -> None:
    loader = train_loader(data, global_batch_size=16, micro_batch_size=2, world_size=4)
    offsets = []
    for batch in loader:
        for image, target in zip(batch.images, batch.targets, strict=True):
            assert min(image.shape[1:]) == 200 or max(image.shape[1:]) == 333
            for mask, box in zip(target["masks"], target["boxes"], strict=True):
                down, right = mask.nonzero().unbind(1)
                if len(down):
                    around = [right.min(), down.min(), right.max() + 1, down.max() + 1]
                    offsets.append(np.abs(np.array(around) - box.numpy()).max())
    assert len(offsets) > 300
    # The corners of a polygon may be too sharp to leave a pixel at the edge of its box.
    assert np.median(offsets) < 0.5 and np.quantile(offsets, 0.9) < 1 and np.max(offsets) < 8


def test_every_photograph_can_be_read_and_is_as_large_as_annotated(data: CocoData) -> None:
    for index in range(0, len(data.val), 5):
        height, width = data.val.size(index)
        assert size_of(data.val.picture(index)) == (height, width)

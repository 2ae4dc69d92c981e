import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.detection.masks import cut_masks, paste_masks
from tests.models.detection import tiny

SIZE = (60, 90)
BOXES = torch.tensor([[10.0, 5, 40, 45], [20.25, 10.5, 85.75, 59.5], [0, 0, 90, 60], [60.5, 30, 75, 42]])


def test_a_mask_is_put_back_without_an_offset() -> None:
    """A cell per pixel: every pixel gets its own cell's value. Half a pixel of offset would shift a row."""
    torch.manual_seed(0)
    cells = torch.rand(1, 14, 14)
    pasted = paste_masks(cells, torch.tensor([[3.0, 5, 17, 19]]), (20, 20), 0.4)
    assert torch.equal(pasted[0, 5:19, 3:17], cells[0] >= 0.4)
    pasted[0, 5:19, 3:17] = False
    assert not pasted.any()


def test_a_mask_is_cut_out_without_an_offset() -> None:
    torch.manual_seed(0)
    masks = (torch.rand(2, 20, 20) > 0.5).to(torch.uint8)
    boxes = torch.tensor([[3.0, 5, 17, 19], [4, 4, 18, 18]])
    cut = cut_masks(masks, torch.tensor([1, 1]), boxes, 14)
    assert torch.equal(cut[0], masks[1, 5:19, 3:17].float())
    assert torch.equal(cut[1], masks[1, 4:18, 4:18].float())


def test_a_box_beyond_the_image_is_cut_off() -> None:
    pasted = paste_masks(torch.ones(1, 4, 4), torch.tensor([[-10.0, -10, 10, 10]]), (20, 20), 0.5)
    assert pasted[0, :9, :9].all() and not pasted[0, 11:].any() and not pasted[0, :, 11:].any()


def test_many_masks_are_pasted_in_parts(monkeypatch) -> None:
    masks = cut_masks(tiny.ellipses(BOXES, *SIZE).to(torch.uint8), torch.arange(4), BOXES, 28)
    whole = paste_masks(masks, BOXES, SIZE, 0.5)
    monkeypatch.setattr("models.detection.masks.MAX_ELEMENTS", 3 * SIZE[0] * SIZE[1])
    assert torch.equal(paste_masks(masks, BOXES, SIZE, 0.5), whole)


def test_no_objects() -> None:
    none = torch.zeros(0, 4)
    assert cut_masks(torch.zeros(0, 9, 9, dtype=torch.uint8), torch.zeros(0).long(), none, 28).shape == (
        0,
        28,
        28,
    )
    assert paste_masks(torch.zeros(0, 28, 28), none, (9, 8), 0.5).shape == (0, 9, 8)


def test_pasted_masks_are_the_same_under_autocast() -> None:
    torch.manual_seed(0)
    probabilities, size = torch.rand(3, 28, 28), (60, 80)
    boxes = torch.tensor([[1.5, 2.0, 70.0, 50.0], [10.0, 10.0, 30.0, 59.0], [0.0, 0.0, 80.0, 60.0]])
    exact = paste_masks(probabilities, boxes, size, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(paste_masks(probabilities, boxes, size, 0.5), exact)


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor made of floats has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.elements = max(self.elements, made.numel())
        return made


def crowded(objects: int, regions: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Masks of as many objects, which of them the regions are for, and the regions' boxes."""
    torch.manual_seed(0)
    corners = torch.rand(objects, 2) * torch.tensor([width, height]) * 0.7
    boxes = torch.cat([corners, corners + 3 + torch.rand(objects, 2) * 20], dim=1)
    masks = (tiny.ellipses(boxes, height, width) > 0).to(torch.uint8)
    index = torch.randint(objects, (regions,))
    return masks, index, boxes[index] + torch.rand(regions, 4)


@pytest.mark.parametrize(("objects", "regions"), [(500, 20), (500, 600), (90, 128), (3, 40)])
def test_of_many_objects_only_the_masks_in_use_become_floats(monkeypatch, objects: int, regions: int) -> None:
    height, width, at_once = 60, 90, 10
    masks, index, boxes = crowded(objects, regions, height, width)
    whole = cut_masks(masks, index, boxes, 28)  # small enough to be cut at once
    monkeypatch.setattr("models.detection.masks.MAX_ELEMENTS", at_once * height * width)
    monkeypatch.setattr("models.detection.masks._MAX_WHOLE", at_once * height * width)
    with LargestTensor() as largest:
        parts = cut_masks(masks, index, boxes, 28)
    assert torch.equal(parts, whole) and whole.any() and not whole.all()
    assert largest.elements <= max(at_once * height * width, whole.numel())


def test_five_hundred_objects_take_no_gigabyte() -> None:
    masks = torch.zeros(500, 300, 400, dtype=torch.uint8)
    index, boxes = torch.randint(500, (128,)), torch.tensor([[10.0, 10, 60, 50]]).expand(128, 4)
    with LargestTensor() as largest:
        cut_masks(masks, index, boxes, 28)
    assert largest.elements < masks.numel() / 3

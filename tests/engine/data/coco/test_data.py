"""What a detector's data promise: the same batches whoever reads them, and sentences for broken files."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data import BrokenImageError, DataError
from engine.data.coco import CocoData, CocoOptions, DetectionBatch, build_coco_data
from engine.data.coco.data import GROUP_SIZE, grouped_order
from engine.data.picture import resized, size_of, to_pillow, to_tensor
from tests.engine.data import loading
from tests.engine.data.coco.coco_files import annotation_path, split_content, write_coco, write_split

EMPTY = {100, 101, 106, 107, 112, 113}  # of the images 100 .. 117 those with a crowd alone, or nothing


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


def open_data(root: Path, seed: int = 0, with_masks: bool = True, **changes: Any) -> CocoData:
    options = {"root": str(root), "shorter_side_px": 24, "longer_side_px": 30, "workers": 0, **changes}
    data = build_coco_data(CocoOptions(**options), with_masks=with_masks, seed=seed)
    assert len(data.trained_on) == data.num_train  # opens the training images
    return data


def test_evaluation_needs_no_training_images(root: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "val2017", split_content(300, 7))
    options = CocoOptions(root=str(tmp_path), workers=0)
    data = build_coco_data(options, with_masks=True, seed=0, trained=open_data(root).classes)
    assert len(val_batches(data)) == 4
    with pytest.raises(DataError, match="instances_train2017.json"):
        _ = data.num_train


def train_batches(data: CocoData, **cut: int) -> list[DetectionBatch]:
    loader = loading.train_loader(data, **{"global_batch_size": 4, "micro_batch_size": 2, **cut})
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def val_batches(data: CocoData, rank: int = 0, world_size: int = 1) -> list[DetectionBatch]:
    return list(loading.val_loader(data, 2, rank, world_size))


def flat(batches: list[DetectionBatch]) -> list[Any]:
    """Return what the batches hold, image by image, as plain values."""
    return [
        (image_id, size, image.tolist(), {name: value.tolist() for name, value in target.items()})
        for batch in batches
        for image, target, image_id, size in zip(
            batch.images, batch.targets, batch.image_ids, batch.original_sizes, strict=True
        )
    ]


def ids(batches: list[DetectionBatch]) -> list[int]:
    return [image_id for batch in batches for image_id in batch.image_ids]


def test_a_batch_is_as_promised(root: Path) -> None:
    data = open_data(root)
    assert (data.num_train, data.num_val) == (12, 7)
    assert data.category_ids == [1, 7, 90] and data.category_names == ("cup", "tree", "comb")
    assert data.val_place(3010) == 1
    batches = train_batches(data)
    assert len(batches) == 2 * data.steps_per_epoch(4) == 6
    for batch in batches:
        assert len(batch.images) == len(batch.targets) == 2
        for image, target, size in zip(batch.images, batch.targets, batch.original_sizes, strict=True):
            assert tuple(image.shape) == (3, *data.resize.size(*size)) and image.dtype == torch.uint8
            count = len(target["boxes"])
            assert target["boxes"].dtype == torch.float32 and target["boxes"].shape == (count, 4)
            assert target["labels"].dtype == torch.int64 and target["labels"].shape == (count,)
            assert target["masks"].dtype == torch.uint8
            assert target["masks"].shape == (count, *image.shape[1:])
            assert count in (1, 2) and set(target["labels"].tolist()) <= {0, 1, 2}


def test_batches_do_not_depend_on_workers_nor_on_the_process(root: Path) -> None:
    data, shared = open_data(root), open_data(root, workers=2)
    assert flat(train_batches(data)) == flat(train_batches(shared))
    assert flat(val_batches(data)) == flat(val_batches(shared))
    unread = pickle.loads(pickle.dumps(open_data(root)))
    assert flat(train_batches(unread)) == flat(train_batches(data))


def test_an_epoch_has_each_image_once_and_no_empty_one(root: Path) -> None:
    with_objects = {10 * number for number in set(range(100, 118)) - EMPTY}
    epochs = [ids(train_batches(open_data(root), epoch=epoch)) for epoch in range(3)]
    assert all(len(set(epoch)) == len(epoch) == 12 and set(epoch) == with_objects for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_empty_images_can_be_kept(root: Path) -> None:
    data = open_data(root, empty_images="keep")
    assert data.num_train == 18
    batches = train_batches(data, global_batch_size=18)
    assert set(ids(batches)) == {10 * number for number in range(100, 118)}
    sizes = {
        image_id: len(target["boxes"])
        for batch in batches
        for image_id, target in zip(batch.image_ids, batch.targets, strict=True)
    }
    assert {image_id // 10 for image_id, size in sizes.items() if size == 0} == EMPTY


def test_epochs_and_seeds_mirror_others(root: Path) -> None:
    def mirrored(seed: int, epoch: int) -> list[int]:
        batches = train_batches(open_data(root, seed=seed), epoch=epoch)
        boxes = {row[0]: row[3]["boxes"] for row in flat(batches)}
        return [image_id for image_id in sorted(boxes) if boxes[image_id] != unmirrored[image_id]]

    plain = dataclasses.replace(open_data(root), mirror_probability=0.0)
    unmirrored = {row[0]: row[3]["boxes"] for row in flat(train_batches(plain))}
    chosen = [mirrored(0, 0), mirrored(0, 1), mirrored(1, 0)]
    assert chosen[0] == mirrored(0, 0)
    assert all(1 < len(images) < 11 for images in chosen)
    assert len({tuple(images) for images in chosen}) == 3


@pytest.mark.parametrize("world_size", [1, 3, 9])
def test_evaluation_sees_every_image_once_as_it_is(root: Path, world_size: int) -> None:
    data = open_data(root)
    batches = [batch for rank in range(world_size) for batch in val_batches(data, rank, world_size)]
    assert ids(batches) == [10 * number for number in range(300, 307)]
    for index, (_, size, image, target) in enumerate(flat(batches)):
        original = data.val.picture(index)
        assert size == size_of(original)
        assert image == to_tensor(resized(original, data.resize.size(*size))).tolist()
        assert target.keys() == {"boxes", "labels"}


def test_a_batch_too_large_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="global_batch_size=16 exceeds the 12 images in pairs of the 12"):
        open_data(root).steps_per_epoch(16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "voc"}, "data.kind is 'voc', expected one of coco, digits"),
        ({"empty_images": "some"}, "data.empty_images is 'some', expected one of drop, keep"),
        ({"shorter_side_px": 31}, "shorter_side_px, longer_side_px: .* got 31 and 30"),
        ({"train_split": "train2014"}, "instances_train2014.json: there is no such file; .*layout"),
    ],
)
def test_other_arguments_are_named(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_data(root, **changes)


def test_a_missing_picture_is_named_when_opening(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "val2017" / f"{303:012d}.png").unlink()
    with pytest.raises(DataError, match="val2017.json: image 3030: there is no file .*000303.png; copy"):
        open_data(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "val2017").rename(tmp_path / "val")
    with pytest.raises(DataError, match="val2017 is not a folder; .*instances_val2017.json"):
        open_data(tmp_path)


def test_file_names_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write_coco(tmp_path)
    content = split_content(300, 7)
    (tmp_path / "val2017" / "more").mkdir()
    for image in content["images"]:
        image["file_name"] = f"more/{image['file_name']}"
    write_split(tmp_path, "val2017", content)
    assert len(ids(val_batches(open_data(tmp_path)))) == 7


def test_validation_categories_are_matched_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other ids, another order, a category more that nothing is of, and one missing."""
    whole = open_data(write_coco(tmp_path))
    assert "classes" not in capsys.readouterr().out
    content = split_content(300, 7)
    content["categories"] = [{"id": 8, "name": "bush"}, {"id": 1, "name": "comb"}, {"id": 4, "name": "cup"}]
    numbers = {90: 1, 1: 4}
    content["annotations"] = [
        {**annotation, "category_id": numbers[annotation["category_id"]]}
        for annotation in content["annotations"]
        if annotation["category_id"] in numbers
    ]
    write_split(tmp_path, "val2017", content)
    data = open_data(tmp_path)
    assert data.category_ids == [4, None, 1] and data.category_names == ("cup", "tree", "comb")
    for index in range(data.num_val):
        kept = whole.val.annotations.objects(index).labels
        assert data.val.annotations.objects(index).labels.tolist() == kept[kept != 1].tolist()
    numbered, missing = [line for line in capsys.readouterr().out.splitlines() if "classes" in line]
    assert "2 ('comb' is 1, there 90, 'cup' is 4, there 1)" in numbered
    assert "has nothing of 1 ('tree') of the 3 classes" in missing


def test_objects_of_an_unknown_category_are_an_error(tmp_path: Path) -> None:
    write_coco(tmp_path)
    content = split_content(300, 7)
    content["categories"] = [
        {**category, "name": category["name"].title()} for category in content["categories"]
    ]
    write_split(tmp_path, "val2017", content)
    with pytest.raises(
        DataError, match=r"instances_val2017.json: .*train2017.json: 3 \('Cup', 'Tree', 'Comb'\)"
    ):
        open_data(tmp_path)


def test_categories_of_one_name_are_told_apart_by_id(tmp_path: Path) -> None:
    write_coco(tmp_path)
    for split, first, count in (("train2017", 100, 18), ("val2017", 300, 7)):
        content = split_content(first, count)
        content["categories"] = [{**category, "name": "thing"} for category in content["categories"]]
        write_split(tmp_path, split, content)
    assert open_data(tmp_path).category_ids == [1, 7, 90]
    content["categories"][0]["id"] = 91
    for annotation in content["annotations"]:
        annotation["category_id"] = annotation["category_id"] % 90 or 91
    write_split(tmp_path, "val2017", content)
    with pytest.raises(DataError, match="val2017.json: 'thing' may be any of several"):
        open_data(tmp_path)


def test_a_split_of_crowds_alone_cannot_be_trained_on(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_split(tmp_path, "train2017", split_content(100, 2))
    content = split_content(100, 2)
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    annotation_path(tmp_path, "train2017").write_text(json.dumps(content))
    open_data(tmp_path, with_masks=False, empty_images="keep")
    with pytest.raises(DataError, match="instances_train2017.json: no image has an object"):
        open_data(tmp_path, with_masks=False)


def damage(root: Path, what: str) -> None:
    """Spoil image 3020 of the validation split."""
    path = root / "val2017" / f"{302:012d}.png"
    content = path.read_bytes()
    if what == "gone":
        path.unlink()
    elif what == "resized":
        Image.open(path).resize((20, 20)).save(path)
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"404: no such image"}[what])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", r"^cannot decode the image .*{name}: .*truncated.*; copy or download it again$"),
        ("text", r"^cannot decode the image .*{name}: no image format known; copy or download it again$"),
        ("gone", r"^cannot read the image .*{name}: No such file or directory; copy or download it again$"),
        ("resized", r"^the image .*{name} is 20 x 20 pixels, but annotated as 32 x 32; .*$"),
    ],
)
def test_a_broken_image_is_named_by_file_and_id(
    tmp_path: Path, what: str, message: str, workers: int
) -> None:
    data = open_data(write_coco(tmp_path), workers=workers)
    damage(tmp_path, what)
    name = r"val2017/000000000302.png \(image 3020 of instances_val2017.json\)"
    # Without `as caught`: its traceback would keep the loading processes until torch has to kill them.
    with pytest.raises(BrokenImageError, match=message.format(name=name)):  # in one line
        val_batches(data)


def test_pixels_are_used_as_stored(tmp_path: Path) -> None:
    """EXIF may say that a picture is to be shown turned; COCO's boxes refer to it unturned."""
    data = open_data(write_coco(tmp_path))
    path = tmp_path / "val2017" / f"{300:012d}.png"
    picture = Image.open(path).copy()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to the right
    picture.save(path, exif=exif)
    assert Image.open(path).getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(to_pillow(data.val.picture(0))), np.asarray(picture))
    assert val_batches(data)[0].original_sizes[0] == (30, 40)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_exif_orientation_that_explains_the_annotated_size_is_named(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    data = open_data(write_coco(tmp_path))
    path = tmp_path / "val2017" / f"{300:012d}.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.new("RGB", (30, 40))
    turned.save(path.with_suffix(suffix), exif=exif)
    path.with_suffix(suffix).rename(path)
    with pytest.raises(BrokenImageError, match=f"000300.png .*EXIF orientation {orientation} .*auto-orient"):
        data.val.picture(0)
    for unknown in (b"", b"Exif\0\0neither MM nor II"):
        turned.save(path.with_suffix(suffix), exif=unknown)
        path.with_suffix(suffix).replace(path)
        with pytest.raises(BrokenImageError, match="sides are exchanged: correct height and width"):
            data.val.picture(0)
    Image.new("RGB", (31, 40)).save(path, exif=exif)
    with pytest.raises(BrokenImageError, match="is 31 x 40 pixels, .* copy or download it again"):
        data.val.picture(0)


def test_digits_are_written_where_asked_and_never_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # test_digits.py writes the real ones
    monkeypatch.setattr("engine.data.coco.digits.write_digits", write_coco)
    data = open_data(tmp_path / "digits", kind="digits")
    assert data.mirror_probability == 0 and data.num_val == 7
    for batch in train_batches(data):
        for image_id, target in zip(batch.image_ids, batch.targets, strict=True):
            place = data.train.annotations.image_ids.tolist().index(image_id)
            height, width = data.train.size(place)
            scale = target["masks"].shape[2] / width
            found = data.train.annotations.objects(place).boxes
            assert np.allclose(target["boxes"][:, 0], found[:, 0] * scale, atol=1e-4)


ratios = st.lists(st.sampled_from([0.5, 0.99, 1.0, 1.01, 2.0]), min_size=1, max_size=60).map(torch.tensor)


@given(ratios, st.integers(0, 5), st.integers(0, 5))
def test_pairs_are_of_one_orientation_and_images_come_once(
    aspect_ratios: torch.Tensor, seed: int, epoch: int
) -> None:
    order = grouped_order(aspect_ratios, seed, epoch)
    assert order.dtype == torch.int64
    assert len(set(order.tolist())) == len(order) == len(aspect_ratios) // 2 * 2
    wide = (aspect_ratios > 1)[order].view(-1, GROUP_SIZE)
    mixed = int((wide.any(1) & ~wide.all(1)).sum())
    odd = [int(((aspect_ratios > 1) == orientation).sum()) % 2 for orientation in (True, False)]
    assert mixed == (sum(odd) == 2)


def test_epochs_and_seeds_pair_and_order_anew() -> None:
    aspect_ratios = torch.tensor([0.7, 1.3, 1.5] * 20)
    orders = [grouped_order(aspect_ratios, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert torch.equal(orders[0], grouped_order(aspect_ratios, 0, 0))
    pairs = [{frozenset(pair) for pair in order.view(-1, 2).tolist()} for order in orders]
    for other in (1, 2):
        assert len(pairs[0] & pairs[other]) < 10
    # wide and tall pairs are mixed, not one after the other
    wide = (aspect_ratios[orders[0]] > 1).view(-1, 2)[:, 0]
    assert 8 < int(wide[:20].sum()) < 19


def test_every_image_of_an_odd_number_has_its_turn() -> None:
    aspect_ratios = torch.full((5,), 2.0)
    missing = {
        (set(range(5)) - set(grouped_order(aspect_ratios, 0, epoch).tolist())).pop() for epoch in range(40)
    }
    assert missing == set(range(5))


def test_the_only_high_image_has_its_turn() -> None:
    aspect_ratios = torch.tensor([1.5, 1.5, 0.7, 1.5])
    assert all(2 in grouped_order(aspect_ratios, 0, epoch) for epoch in range(10))

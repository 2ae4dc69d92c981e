import numpy as np
import torch
from sklearn.datasets import load_digits

from engine.data import ImageData, ImageOptions, build_data
from engine.data.digits import open_digits
from tests.engine.data.loading import val_loader


def digits(seed: int = 0) -> ImageData:
    options = ImageOptions(kind="digits", image_size_px=8, eval_crop_ratio=1.0, workers=0)
    return build_data(options, seed)


def all_pixels(source: object) -> np.ndarray:
    return np.stack([np.asarray(source.image(index))[:, :, 0] for index in range(len(source))])


def test_the_splits_are_scikit_learns_digits_each_once() -> None:
    (train, classes), (val, _) = open_digits("train"), open_digits("val")
    assert (len(train), len(val), classes.names) == (1437, 360, tuple("0123456789"))
    ours = np.concatenate([all_pixels(train), all_pixels(val)]).reshape(1797, 64)
    theirs = np.rint(load_digits().images * (255 / 16)).astype(np.uint8).reshape(1797, 64)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, theirs))
    labels = np.concatenate([train.labels, val.labels])
    by_picture = {bytes(image): label for image, label in zip(theirs, load_digits().target, strict=True)}
    assert [by_picture[bytes(image)] for image in ours] == labels.tolist()


def test_the_split_keeps_the_shares_of_the_classes() -> None:
    train, val = (open_digits(split)[0] for split in ("train", "val"))
    share = np.bincount(val.labels) / (np.bincount(val.labels) + np.bincount(train.labels))
    assert np.abs(share - 360 / 1797).max() < 0.005


def test_the_split_does_not_depend_on_the_seed_and_never_changes() -> None:
    one, other = (next(iter(val_loader(digits(seed), batch_size=360))) for seed in (0, 1))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert one[1][:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]

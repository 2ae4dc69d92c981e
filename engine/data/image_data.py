"""A data set with its transforms, and the batches of training and evaluation on any number of processes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.data import transforms
from engine.data.digits import open_digits
from engine.data.imagefolder import open_image_folder
from engine.data.loader import BatchLoader, ImageBatch, TrainSamples, ValSamples, collate_images
from engine.data.sampler import train_batches, val_batches
from engine.data.selection import at_most
from engine.data.shrinking import shrunk
from engine.data.source import DataError, ImageSource
from engine.data.transforms import Transform
from engine.data.webdataset import open_shards


@dataclass(frozen=True)
class ImageData:
    """Training and validation images. Samples are the same to the bit on any number of ranks."""

    train: ImageSource
    val: ImageSource
    class_names: list[str]
    train_transform: Transform
    eval_transform: Transform
    skip_broken: bool
    seed: int

    @property
    def num_classes(self) -> int:
        """Number of classes, in both splits."""
        return len(self.class_names)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def num_val(self) -> int:
        """Number of validation images."""
        return len(self.val)

    def steps_per_epoch(self, global_batch_size: int) -> int:
        """Return num_train // global_batch_size. Raises DataError where that is 0."""
        if global_batch_size > self.num_train:
            raise DataError(
                f"global_batch_size={global_batch_size} exceeds the {self.num_train} training images: "
                f"not one step per epoch; set global_batch_size to {self.num_train} or less"
            )
        return self.num_train // global_batch_size

    def train_loader(
        self,
        *,
        epoch: int,
        start_step: int,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        workers: int,
    ) -> BatchLoader[ImageBatch]:
        """Return this rank's micro-batches of the epoch, from optimizer step `start_step` on.

        Every step consumes global_batch_size distinct samples over all ranks, the same ones whatever the
        number of ranks and workers: global_batch_size / world_size / micro_batch_size micro-batches per rank.
        Earlier steps are not read. The last num_train % global_batch_size samples of the epoch's order are
        left out. With broken_images=skip a broken sample is replaced by the next readable one.
        """
        self.steps_per_epoch(global_batch_size)
        batches = train_batches(
            self.train.epoch_order(self.seed, epoch),
            start_step=start_step,
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
        )
        samples = TrainSamples(self.train, self.train_transform, self.seed, epoch)
        return BatchLoader(
            samples, batches, collate=collate_images, workers=workers, skip_broken=self.skip_broken
        )

    def val_loader(
        self, *, batch_size: int, rank: int, world_size: int, workers: int
    ) -> BatchLoader[ImageBatch]:
        """Return this rank's share of the validation images: over all ranks every image exactly once.

        Ranks may get different numbers of batches, or none. broken_images=skip leaves the broken ones out.
        """
        batches = val_batches(len(self.val), batch_size=batch_size, rank=rank, world_size=world_size)
        samples = ValSamples(self.val, self.eval_transform)
        return BatchLoader(
            samples, batches, collate=collate_images, workers=workers, skip_broken=self.skip_broken
        )


def build_data(
    *,
    kind: str,
    root: str,
    image_size_px: int,
    augmentation: str,
    eval_crop_ratio: float,
    broken_images: str,
    seed: int,
    max_train_images: int = 0,
    max_val_images: int = 0,
    shrink_px: int = 0,
) -> ImageData:
    """Open a data set: kind imagefolder, webdataset or digits (which ignores `root`).

    augmentation: standard, autoaugment or none (training sees what evaluation sees); broken_images: error or
    skip. Of more images than the maxima say, so many are taken, evenly spread; 0 takes all. shrink_px: larger
    images are first brought to this shorter side and kept in memory; 0: neither. Raises DataError
    where the files do not fit, ValueError for an unknown word.
    """
    check_choice("broken_images", broken_images, ("error", "skip"))
    train, val, class_names = _open(kind, Path(root))
    train = shrunk(at_most(train, max_train_images), shrink_px)
    val = shrunk(at_most(val, max_val_images), shrink_px)
    evaluation = transforms.eval_transform(image_size_px, eval_crop_ratio)
    standard = transforms.digit_transform if kind == "digits" else transforms.photo_transform
    training = {
        "standard": standard(image_size_px),
        "autoaugment": transforms.autoaugment_transform(image_size_px),
        "none": evaluation,
    }
    check_choice("augmentation", augmentation, training)
    skip_broken = broken_images == "skip"
    return ImageData(train, val, class_names, training[augmentation], evaluation, skip_broken, seed)


def _open(kind: str, root: Path) -> tuple[ImageSource, ImageSource, list[str]]:
    check_choice("kind", kind, ("imagefolder", "webdataset", "digits"))
    if kind == "digits":
        return open_digits()
    return open_shards(root) if kind == "webdataset" else open_image_folder(root)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError, which names them, unless `value` of the argument `name` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")

"""Loaders for the tests, cut as a task cuts them."""

from typing import Any

from engine.data import ImageData
from engine.data.coco import CocoData
from engine.data.loader import BatchLoader
from engine.data.sampler import train_batches, val_batches


def train_loader(
    data: ImageData | CocoData,
    *,
    epoch: int = 0,
    start_step: int = 0,
    global_batch_size: int = 8,
    micro_batch_size: int = 4,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader[Any]:
    batches = train_batches(
        data.epoch_order(epoch),
        start_step=start_step,
        global_batch_size=global_batch_size,
        micro_batch_size=micro_batch_size,
        rank=rank,
        world_size=world_size,
    )
    return data.train_loader(epoch, batches)


def val_loader(
    data: ImageData | CocoData, batch_size: int = 4, rank: int = 0, world_size: int = 1
) -> BatchLoader[Any]:
    return data.val_loader(val_batches(data.num_val, batch_size=batch_size, rank=rank, world_size=world_size))

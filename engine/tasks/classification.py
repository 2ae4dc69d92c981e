"""Image classification as a task for the training loop: its batches, its loss, its evaluation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from engine.amp import Precision
from engine.data import ImageData
from engine.data.device import normalize
from engine.evaluation import Evaluation
from engine.processes.distributed import World
from engine.records.console import warn
from engine.tasks.image_task import ImageTask

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Classification(ImageTask):
    """What the loop needs to know about training a classifier on `data`."""

    data: ImageData
    label_smoothing: float = 0.0
    memory_format: torch.memory_format = torch.contiguous_format  # of the network's input
    main_metric: str = "top1"
    _skipped: set[str] = field(default_factory=set)

    def facts(self) -> dict[str, int]:
        data = self.data
        return {"num_train": data.num_train, "num_val": data.num_val, "num_classes": data.classes.count}

    def describe(self) -> str:
        data = self.data
        return (
            f"{data.num_train} training and {data.num_val} validation images "
            f"in {data.classes.count} classes\n"
            f"{self.describe_cut()}"
        )

    def losses(self, model: nn.Module, micro_batch: Batch) -> dict[str, torch.Tensor]:
        images, labels = self._on_device(micro_batch)
        with self.precision.autocast():
            logits = model(images)
        entropy = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        return {"cross_entropy": entropy}

    def predict(self, model: nn.Module, micro_batch: Batch) -> torch.Tensor:
        with self.precision.autocast():
            logits: torch.Tensor = model(self._on_device(micro_batch)[0])
        return logits

    def _on_device(self, micro_batch: Batch) -> Batch:
        """Return the images, normalised, and their labels on the device."""
        images, labels = micro_batch
        return self.feed(
            lambda: (normalize(self.on_device(images), self.memory_format), self.on_device(labels))
        )

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation | None:
        loader = self.val_loader(self.device_batch_size)
        metrics = evaluate_classifier(
            model,
            map(self._on_device, loader),
            world=self.world,
            precision=self.precision,
            should_stop=should_stop,
        )
        self.report_skipped(loader.skipped)
        return Evaluation(metrics) if metrics else None

    def report_skipped(self, sentences: Iterable[str]) -> None:
        """Name each broken image once, whichever process met it."""
        for sentence in sorted(set(sentences) - self._skipped):
            self._skipped.add(sentence)
            warn(f"skipped broken image {len(self._skipped)}: {sentence}")


@torch.no_grad()
def evaluate_classifier(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    world: World,
    precision: Precision,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return `top1` and `top5` (percent), the mean cross entropy `loss` and the number of `images`.

    `batches` are this process's share, on its device: images float32 (n, 3, h, w), labels int64 (n,). All
    processes must call, and get the same result, or None if `should_stop` was true on any before a batch.
    """
    # The model is bare, not wrapped for DDP: processes may have different numbers of batches.
    was_training = model.training
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=world.device)
    stopped = False
    for images, labels in batches:
        if should_stop():
            stopped = True
            break
        with precision.autocast():
            logits = model(images)
        totals += _sums(logits.float(), labels)
    model.train(was_training)
    world.meet("classifying the validation images")
    # Sums and counts, not means: each image weighs the same however the images are shared out.
    loss, top1, top5, count, stops = world.sum([*totals.tolist(), float(stopped)])
    if stops:
        return None
    if not count:
        raise ValueError("evaluation: there is not a single image to evaluate on")
    return {
        "top1": 100 * top1 / count,
        "top5": 100 * top5 / count,
        "loss": loss / count,
        "images": int(count),
    }


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    return torch.stack([loss, hits[:, 0].sum(), hits.sum(), torch.full_like(loss, len(labels))]).double()

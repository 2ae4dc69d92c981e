"""Image classification as a task for the training loop: its batches, its loss, its evaluation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from engine.data import ImageData
from engine.evaluation import Evaluation
from engine.records.console import warn
from engine.tasks.accuracy import Batch, evaluate_classifier
from engine.tasks.image_task import ImageTask


@dataclass
class Classification(ImageTask):
    """What the loop needs to know about training a classifier on `data`."""

    data: ImageData
    label_smoothing: float = 0.0
    main_metric: str = "top1"
    _skipped: set[str] = field(default_factory=set)

    def facts(self) -> dict[str, int]:
        """Return what must not change about the data when a run is resumed."""
        data = self.data
        return {"num_train": data.num_train, "num_val": data.num_val, "num_classes": data.num_classes}

    def describe(self) -> str:
        """Return, in two lines, the images and how a global batch is cut."""
        data = self.data
        return (
            f"{data.num_train} training and {data.num_val} validation images in {data.num_classes} classes\n"
            + self.describe_cut()
        )

    def losses(self, model: nn.Module, micro_batch: Batch) -> dict[str, torch.Tensor]:
        """Return the mean cross entropy over one micro-batch, computed in float32."""
        images, labels = (part.to(self.world.device, non_blocking=True) for part in micro_batch)
        with self.precision.autocast():
            logits = model(images)
        entropy = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        return {"cross_entropy": entropy}

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Evaluate on the validation images; None if any process was asked to stop."""
        loader = self.val_loader(self.device_batch_size)
        metrics = evaluate_classifier(
            model, loader, world=self.world, precision=self.precision, should_stop=should_stop
        )
        self.report_skipped(loader.skipped)
        return Evaluation(metrics) if metrics else None

    def report_skipped(self, sentences: Iterable[str]) -> None:
        """Name each broken image once, whichever process met it."""
        for sentence in sorted(set(sentences) - self._skipped):
            self._skipped.add(sentence)
            warn(f"skipped broken image {len(self._skipped)}: {sentence}")

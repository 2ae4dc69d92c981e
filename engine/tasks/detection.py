"""Object detection as a task for the training loop: its batches, its losses, its evaluation as COCO's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from engine.data.coco import CocoData, DetectionBatch
from engine.data.picture import to_pillow
from engine.evaluation import Evaluation
from engine.tasks.coco_pictures import detections_grid, draw_detections
from engine.tasks.coco_scoring import Detections, coco_results, score
from engine.tasks.image_task import ImageTask

PICTURES = 8  # images in the grid that an evaluation draws


@dataclass
class Detection(ImageTask):
    """What the loop needs to know about training a detector on `data`.

    The model is called as `model(images, targets)`, which gives losses by name, in training mode, and as
    `model(images, original_sizes=sizes)`, which gives each image's detections, in evaluation mode. `scorer`
    is pycocotools or faster-coco-eval.
    """

    data: CocoData
    scorer: str = "pycocotools"
    main_metric: str = "bbox_AP"

    def facts(self) -> dict[str, int]:
        data = self.data
        return {
            "num_train": data.num_train,
            "num_val": data.num_val,
            "num_categories": data.classes.count,
        }

    def describe(self) -> str:
        data = self.data
        images = (
            f"{data.num_train} training and {data.num_val} validation images with objects of "
            f"{data.classes.count} categories"
        )
        targets = data.train.annotations.targets
        return "\n".join([images, *([targets] if targets else []), self.describe_cut()])

    def losses(self, model: nn.Module, micro_batch: DetectionBatch) -> dict[str, torch.Tensor]:
        images = self._images(micro_batch)
        targets = self.feed(lambda: tree_map(self.on_device, micro_batch.targets))
        with self.precision.autocast():
            losses = model(images, targets)
        return {name: loss.float() for name, loss in losses.items()}

    def predict(self, model: nn.Module, micro_batch: DetectionBatch) -> list[Detections]:
        with self.precision.autocast():
            found: list[Detections] = model(
                self._images(micro_batch), original_sizes=micro_batch.original_sizes
            )
        return found

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Score the detections in all validation images; None if any process was asked to stop.

        The metrics are COCO's, in percent, without those of objects that the data do not have; the main one
        is then 0.
        """
        found = self._detect(model, should_stop)
        if found is None:
            return None
        results, drawn = found
        gathered = [entry for share in self.world.gather(results) for entry in share]
        metrics = self.world.on_main(lambda: self._score(gathered), "scoring the detections")
        if not self.world.is_main:
            return Evaluation(metrics)
        pictures = {"detections": detections_grid(drawn)} if drawn else {}
        return Evaluation(metrics, pictures, {"detections": gathered})

    @torch.no_grad()
    def _detect(
        self, model: nn.Module, should_stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Any]], list[torch.Tensor]] | None:
        """Return this process's share of COCO results and, on the main one, its first images, drawn."""
        results: list[dict[str, Any]] = []
        drawn: list[torch.Tensor] = []
        was_training = model.training
        model.eval()
        # One by one: a batch is padded to a common size, and its borders change what is found near them.
        for batch in self.val_loader(batch_size=1):
            if should_stop():
                break
            detections = self.predict(model, batch)
            results += coco_results(batch.image_ids, detections, self.data.category_ids)
            # Drawn at once: the masks of a large photograph take a gigabyte.
            if self.world.is_main and len(drawn) < PICTURES:
                drawn += [self._draw(*shown) for shown in zip(batch.image_ids, detections, strict=True)]
        model.train(was_training)
        self.world.meet("detecting objects in the validation images")
        # Asked once more: what comes now takes minutes for thousands of images, and is not interrupted.
        return None if self.world.sum([float(should_stop())])[0] else (results, drawn)

    def _score(self, results: list[dict[str, Any]]) -> dict[str, float]:
        scores = score(
            self.data.ground_truth,
            results,
            ("bbox", "segm") if self.data.with_masks else ("bbox",),
            self.scorer,
        )
        percent = {name: 100 * value for name, value in scores.items() if value >= 0}
        return {**percent, self.main_metric: percent.get(self.main_metric, 0.0), "images": self.data.num_val}

    def _draw(self, image_id: int, found: Detections) -> torch.Tensor:
        val, place = self.data.val, self.data.val_place(image_id)
        truth = torch.from_numpy(val.annotations.objects(place).boxes)
        return draw_detections(to_pillow(val.picture(place)), truth, found, self.data.category_names)

    def _images(self, micro_batch: DetectionBatch) -> list[torch.Tensor]:
        """Return the images on the device, float32 in [0, 1]."""
        return self.feed(lambda: [self.on_device(image).float() / 255 for image in micro_batch.images])

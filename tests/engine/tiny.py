"""A network and a task of milliseconds with all a training run has: both phases, dropout, averages."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from engine.data.classes import named
from engine.evaluation import Evaluation
from engine.processes.distributed import World
from engine.training.ema import Ema
from engine.training.optimizer import OptimizerOptions, build_sgd
from engine.training.state import TrainingState
from pwlu import PWLU, TwoPhaseLearning

STEPS_PER_EPOCH = 3
GLOBAL_BATCH = 8
Batch = tuple[torch.Tensor, torch.Tensor]


def network(normalized: bool = True, dropout: float = 0.2) -> nn.Sequential:
    """Return a classifier of 3 x 6 x 6 images into 4 classes, always with the same weights."""
    torch.manual_seed(0)
    norm: nn.Module = nn.BatchNorm2d(4) if normalized else nn.Identity()
    layers = [nn.Conv2d(3, 4, 3), norm, PWLU(4, num_intervals=4), nn.Dropout(dropout), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 4))


def state(
    model: nn.Module,
    *,
    phase1_steps: int = 4,
    fp16: bool = False,
    ema_decay: float = 0.9,
    decay: float = 0.01,
    device: str = "cpu",
) -> TrainingState:
    """Return a state at step 0; weight decay and momentum are on for every parameter."""
    return TrainingState(
        model=model,
        optimizer=build_sgd(
            model,
            OptimizerOptions(
                peak_lr=0.1,
                weight_decay=decay,
                norm_and_bias_weight_decay=decay,
                activation_weight_decay=decay,
            ),
            is_activation=lambda module: isinstance(module, PWLU),
        ),
        scaler=torch.amp.GradScaler(device, enabled=fp16, init_scale=8.0, growth_interval=2),
        phases=TwoPhaseLearning(model, phase1_steps),
        ema=Ema(model, ema_decay) if ema_decay else None,
    )


def global_batch(step: int) -> Batch:
    """Return the images and labels of one optimizer step, over all processes."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(GLOBAL_BATCH, 3, 6, 6, generator=generator) + 0.5
    return images, torch.randint(4, (GLOBAL_BATCH,), generator=generator)


class Task:
    """Classifies the images of `global_batch`; `on_call` gets the name of every call."""

    main_metric = "top1"
    classes = named("abcd", "tiny")

    def __init__(
        self, world: World, accumulation: int = 2, on_call: Callable[[str], Any] = lambda name: None
    ) -> None:
        self.accumulation = accumulation
        self._world, self._on_call = world, on_call

    def facts(self) -> dict[str, int]:
        """Return the number of images."""
        return {"num_train": 24}

    def describe(self) -> str:
        """Return the number of images, as a sentence."""
        return "24 images"

    def batches(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
        """Cut each step's images by rank, then into micro-batches."""
        for step in range(start_step, STEPS_PER_EPOCH):
            self._on_call("batches")
            images, labels = global_batch(epoch * STEPS_PER_EPOCH + step)
            parts = self._world.size * self.accumulation
            pairs = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
            yield pairs[self._world.rank * self.accumulation :][: self.accumulation]

    def losses(self, model: nn.Module, micro_batch: Batch) -> dict[str, torch.Tensor]:
        """Mean cross entropy."""
        self._on_call("loss")
        images, labels = micro_batch
        return {"cross_entropy": F.cross_entropy(model(images), labels)}

    def predict(self, model: nn.Module, micro_batch: Batch) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = model(micro_batch[0])
        return logits

    def evaluate(self, model: nn.Module, should_stop: Callable[[], bool]) -> Evaluation | None:
        """Accuracy on the images of one far away step."""
        self._on_call("evaluate")
        if sum(self._world.sum([float(should_stop())])):
            return None
        images, labels = global_batch(1000)
        model.eval()
        with torch.no_grad():
            logits = model(images)
        model.train()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return Evaluation({"top1": 100 * accuracy, "loss": F.cross_entropy(logits, labels).item()})

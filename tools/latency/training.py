"""The training step that tools.latency measures: the trainer's own, in phase II of the two-phase learning."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.amp import Precision
from engine.processes.distributed import World
from engine.training.optimizer import OptimizerOptions
from engine.training.result import StepResult
from engine.training.state import TrainingState, new_state
from engine.training.step import TrainStep
from models import activation_factory, build_classifier, is_activation
from pwlu import fuse_batch_norm
from pwlu_ext.benchmarks.measure import Call, kept_mib
from tools.latency.networks import NUM_CLASSES, SEED
from tools.latency.runtimes import compile_alone, prepare

FUSED = "pwlu (BatchNorm fused)"
LEARNING_RATE = 1e-3  # any that does not diverge: the time does not depend on it
# No graph of the whole step can be captured: its learning rate, seed and phase are the host's.
RUNTIMES = ("eager", "compile")


def training_steps(
    name: str,
    row: str,
    batch: tuple[Tensor, Tensor],
    *,
    runtimes: Sequence[str],
    precision: Precision,
    world: World,
    memory_format: torch.memory_format,
) -> tuple[dict[str, Call], float]:
    """Return, by runtime, a call that trains network `name` for one step: forward, loss, backward, SGD.

    With it the MiB that an eager forward pass keeps for the backward one, without the parameters. `row` is an
    activation, or FUSED; `batch` is images (N, 3, H, W) in float32 and labels (N,), both on `world.device`.
    Raises ValueError for an unknown name, and for a runtime that this network cannot run in.
    """
    torch.manual_seed(SEED)
    make = activation_factory("pwlu" if row == FUSED else row)
    size = tuple(batch[0].shape[1:])
    network, _ = build_classifier(name, make, num_classes=NUM_CLASSES, input_size=size)
    network.to(world.device).to(memory_format=memory_format)
    if row == FUSED:
        fuse_batch_norm(network, input_size=size)
    state = new_state(
        network,
        precision,
        OptimizerOptions(peak_lr=LEARNING_RATE, weight_decay=1e-4),
        is_activation=is_activation,
        phase1_steps=1,
    )
    one_step(
        state, network, batch, precision, world
    )()  # phase I; all runtimes train this network in phase II

    def call_in(runtime: str) -> Call:
        forward = compile_alone(network) if runtime == "compile" else network
        return one_step(state, forward, batch, precision, world)

    def forward() -> Tensor:
        with precision.autocast():
            return network(batch[0])

    return {name: prepare(name, row, partial(call_in, name)) for name in runtimes}, kept_mib(forward)


def one_step(
    state: TrainingState,
    forward: Callable[[Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    precision: Precision,
    world: World,
) -> Call:
    """Return a call of the trainer's step; `forward` is the state's network or a compiled form of it.

    The call raises ValueError if the loss of the call before was not finite: such a step updates nothing.
    """

    def losses(_: nn.Module, micro_batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = micro_batch
        with precision.autocast():
            logits = forward(images)
        return {"cross_entropy": F.cross_entropy(logits.float(), labels)}

    state.train_mode()
    step = TrainStep(state, world, compute_losses=losses, accumulation=1, clip_grad_norm=0.0, seed=SEED)

    unread: list[StepResult] = []

    def call() -> None:
        unread.append(step([batch], LEARNING_RATE))
        # As the trainer, which reads a step's loss when the next one is under way.
        if len(unread) > 1 and not unread.pop(0).is_finite:
            raise ValueError(
                "the loss of the training step is not finite: such a step updates nothing, and its time "
                "would mean nothing; use another --training-amp"
            )

    return call

"""What a checkpoint must hold so that a run goes on as if it had never stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.amp import Precision
from engine.records.console import listed
from engine.training.checkpoint import CheckpointError, load_weights
from engine.training.ema import Ema
from engine.training.frozen import freeze_all_but
from engine.training.optimizer import OptimizerOptions, build_sgd, load_optimizer
from engine.training.result import MeanLosses
from pwlu import PWLU, TwoPhaseLearning
from pwlu.realignment import is_at_start

_ALIKE = 1e-4  # relative: other processors compute starting functions to other last bits


@dataclass
class TrainingState:
    """All that changes during training. There is no random state: see `engine.training.step.seed_step`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    phases: TwoPhaseLearning
    ema: Ema | None = None
    step: int = 0  # finished optimizer steps
    best: dict[str, float] = field(default_factory=dict)  # best value of the main metric, and its `step`
    losses: MeanLosses = field(default_factory=MeanLosses)
    keeping_statistics: Sequence[nn.Module] = ()  # in evaluation mode during training, see freeze_all_but

    def train_mode(self) -> None:
        """Bring the model into the mode of a training step."""
        self.model.train()
        for module in self.keeping_statistics:
            module.training = False

    def state_dict(self) -> dict[str, Any]:
        """Return nested dicts of tensors and plain values, as `torch.load(weights_only=True)` reads them."""
        return {
            "step": self.step,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "phases": self.phases.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "best": dict(self.best),
            "losses": self.losses.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        load_network(self.model, self.phases, state)
        load_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.best = dict(state["best"])
        self.losses.load_state_dict(state["losses"])

    @property
    def phase(self) -> int | None:
        """The learning phase (section 3.3), 1 or 2; None for a model without PWLU."""
        has_pwlu = any(isinstance(module, PWLU) for module in self.model.modules())
        return self.phases.phase if has_pwlu else None


def load_network(model: nn.Module, phases: TwoPhaseLearning, checkpoint: Mapping[str, Any]) -> None:
    """Load a checkpoint's weights, and the phase that they are of.

    Raises CheckpointError for weights of another network, and in phase I for PWLUs that start otherwise.
    """
    load_weights(model, checkpoint["model"])
    phases.load_state_dict(checkpoint["phases"])
    if phases.phase == 2:
        return
    if others := not_at_start(model):  # init=replaced: what they start as came with the weights
        raise CheckpointError(
            "the checkpoint is of phase I, in which PWLUs are what they start as, and that is another "
            f"function here: {listed(others)}. It came with the weights that the run began from: to resume, "
            "give --init-from with that file; to evaluate, take a checkpoint of phase II"
        )


def not_at_start(model: nn.Module) -> list[str]:
    """Return the names of the PWLUs that are not what they start as."""
    sites = ((name, module) for name, module in model.named_modules() if isinstance(module, PWLU))
    return [name for name, site in sites if not is_at_start(site, _ALIKE)]


def new_state(
    model: nn.Module,
    precision: Precision,
    options: OptimizerOptions,
    *,
    is_activation: Callable[[nn.Module], bool],
    phase1_steps: int,
) -> TrainingState:
    """Return the state before the first step; `phase1_steps` is the paper's T' (0: no phase I).

    `is_activation` tells the modules whose parameters get the activations' decay and learning rate.
    """
    only_activations = options.train_only == "activation"
    return TrainingState(
        model=model,
        optimizer=build_sgd(model, options, is_activation),
        scaler=precision.scaler(),
        phases=TwoPhaseLearning(model, phase1_steps),
        ema=Ema(model, options.ema_decay) if options.ema_decay else None,
        keeping_statistics=freeze_all_but(model, is_activation) if only_activations else (),
    )

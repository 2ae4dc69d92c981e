"""What of a configuration makes two runs the same experiment."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.schema import RunConfig

# Keys that say where and how a run is executed, not what is computed: they may change when a run is resumed.
_EXECUTION = ("output", "data.root", "data.workers", "runtime.")
_BUT = ("runtime.amp",)
_NETWORK = ("model.", "activation.")
_STARTING_WEIGHTS = "model.pretrained"
STARTING_FILE = "init_from"  # what `--init-from` adds to the values

# What runs did before these keys existed. They have no part in a hash where they say the same, so that runs
# and records of before are those of today's configurations.
_BEFORE: dict[str, Any] = {
    "activation.init": "relu",
    "activation.init_slope": 0.25,
    "data.decoder": "pillow",
    _STARTING_WEIGHTS: False,
    "optimizer.train_only": "all",
}


@dataclass(frozen=True)
class Experiment:
    """The settings of a run.

    Attributes:
        settings: all of them, as nested dicts of str, int, float, bool and lists of int.
        values: by dotted key, those that define the experiment: all but the run folder, where the data lie,
            worker processes, and `runtime` other than `amp`.
        hash: 16 hexadecimal digits over `values`, those of newer keys where they are not as ever.
    """

    settings: dict[str, Any]
    values: dict[str, Any]
    hash: str

    @property
    def network(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.values.items()
            if key.startswith(_NETWORK) and key != _STARTING_WEIGHTS
        }

    def identity(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the run's checkpoints say of it; `data` are facts about its data."""
        return {
            "settings": self.settings,
            "experiment": self.values,
            "experiment_hash": self.hash,
            "data": dict(data),
        }


def experiment_of(config: RunConfig, init_from: str | None = None) -> Experiment:
    """Return the experiment that a configuration describes.

    `init_from` says what weights it starts from: the digest of a file, or the hash of another experiment.
    """
    settings = dataclasses.asdict(config)
    values = {
        key: value for key, value in leaves(settings).items() if key in _BUT or not key.startswith(_EXECUTION)
    }
    if init_from is not None:
        values[STARTING_FILE] = init_from
    hashed = {key: value for key, value in values.items() if key not in _BEFORE or value != _BEFORE[key]}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    return Experiment(settings, values, digest[:16])


def saved_value(saved: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key in a saved experiment, also of one that did not exist when it was saved."""
    return saved.get(key, _BEFORE.get(key))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of nested dicts."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat

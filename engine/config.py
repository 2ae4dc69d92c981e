"""From a YAML file and `key=value` words to a checked, typed TrainConfig.

The configuration object stops at the training programs: everything below them takes plain arguments.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config_files import COMMAND_LINE, ConfigError, Entry, parse_overrides, read_file, suggestion
from engine.config_schema import BOUNDS, CHOICES, TrainConfig

__all__ = ["ConfigError", "TrainConfig", "config_hash", "config_to_dict", "experiment_values", "load_config"]

# Keys that say where and how a run is executed, not what is computed: they may change when a run is resumed.
_NOT_THE_EXPERIMENT = ("output", "data.root", "data.workers", "runtime.")
_PART_OF_IT_ALL_THE_SAME = ("runtime.amp",)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file with all it inherits, lay the `key=value` overrides over it, and check the result.

    Raises ConfigError, which names the file, the dotted key, what came and what was expected.
    """
    path = Path(path)
    entries = read_file(path) | parse_overrides(overrides)
    tree = OmegaConf.structured(TrainConfig)
    keys = _leaves(OmegaConf.to_container(tree))
    for key, entry in entries.items():
        _assign(tree, key, entry, keys)
    config = _to_object(tree, path)
    config.output = config.output or f"runs/{path.stem}"
    _check(config, {key: entry.source for key, entry in entries.items()}, str(path))
    return config


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as nested dicts of str, int, float and bool."""
    return dataclasses.asdict(config)


def experiment_values(config: TrainConfig) -> dict[str, Any]:
    """Return {dotted key: value} of every key that defines the experiment.

    Left out: the run folder, where the data lie, worker processes, and all of `runtime` but `amp`.
    """
    return {
        key: value
        for key, value in _leaves(config_to_dict(config)).items()
        if key in _PART_OF_IT_ALL_THE_SAME or not key.startswith(_NOT_THE_EXPERIMENT)
    }


def config_hash(config: TrainConfig) -> str:
    """Return 16 hex digits over `experiment_values`."""
    return hashlib.sha256(json.dumps(experiment_values(config), sort_keys=True).encode()).hexdigest()[:16]


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of nested dicts."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def _assign(tree: DictConfig, key: str, entry: Entry, keys: Mapping[str, Any]) -> None:
    """Put one value, given as text, into the typed tree."""
    if key not in keys:
        inside = [known for known in keys if known.startswith(key + ".")]
        if inside:
            raise ConfigError(
                f"{entry.source}: {key!r} is a section, not a value; its keys: {', '.join(inside)}"
            )
        raise ConfigError(f"{entry.source}: unknown key {key!r}{suggestion(key, keys)}")
    try:
        OmegaConf.update(tree, key, entry.text)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{entry.source}: {key}: expected {_type_of(key)}, got {entry.text!r}") from error


def _type_of(key: str) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    cls: Any = TrainConfig
    for name in key.split("."):
        cls = {field.name: field.type for field in dataclasses.fields(cls)}[name]
    return words[cls]


def _to_object(tree: DictConfig, path: Path) -> TrainConfig:
    """Return the tree as dataclasses, with references such as ${epochs} resolved and every key present."""
    try:
        missing = sorted(OmegaConf.missing_keys(tree))
        if missing:
            raise ConfigError(
                f"{path}: no value for {', '.join(missing)}; add it to the file or as {missing[0]}=..."
            )
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: {error.full_key}: cannot use this reference: {reason}") from error
    assert isinstance(config, TrainConfig)
    return config


def _check(config: TrainConfig, sources: Mapping[str, str], path: str) -> None:
    """Raise ConfigError for the first value out of its range and for combinations that cannot work."""
    for key, value in _leaves(config_to_dict(config)).items():
        where = f"{sources.get(key, path)}: {key}"
        if key in CHOICES and value not in CHOICES[key]:
            choices = CHOICES[key]
            raise ConfigError(
                f"{where}: expected one of {', '.join(choices)}, got {value!r}{suggestion(value, choices)}"
            )
        if key in BOUNDS and not BOUNDS[key][1](value):
            raise ConfigError(f"{where}: expected {BOUNDS[key][0]}, got {value!r}")
        if value == "":
            raise ConfigError(f"{where}: expected a word, got nothing")
    for keys, sentence in _conflicts(config):
        given_there = COMMAND_LINE in [sources.get(key) for key in keys]
        raise ConfigError(f"{COMMAND_LINE if given_there else path}: {sentence}")


def _conflicts(config: TrainConfig) -> list[tuple[tuple[str, str], str]]:
    """Return (keys concerned, sentence) for each impossible combination."""
    warmup_epochs, optimizer = config.schedule.warmup_epochs, config.optimizer
    conflicts = []
    if config.phase1_epochs > config.epochs:
        sentence = f"phase1_epochs={config.phase1_epochs:g} exceeds epochs={config.epochs}"
        conflicts.append((("phase1_epochs", "epochs"), sentence + "; give a smaller phase1_epochs as well"))
    if warmup_epochs >= config.epochs:
        sentence = f"schedule.warmup_epochs={warmup_epochs:g} leaves nothing of epochs={config.epochs}"
        conflicts.append(
            (("schedule.warmup_epochs", "epochs"), sentence + "; give a shorter warm-up as well")
        )
    if optimizer.nesterov and optimizer.momentum == 0:
        sentence = "optimizer.nesterov=true needs optimizer.momentum greater than 0"
        conflicts.append((("optimizer.nesterov", "optimizer.momentum"), sentence))
    return conflicts

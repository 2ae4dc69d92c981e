"""From a YAML file and `key=value` words to a checked, typed configuration of one of the trainers.

The configuration object stops at the training programs: everything below them takes plain arguments.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config.coco import COCO, CocoConfig
from engine.config.files import COMMAND_LINE, ConfigError, Entry, parse_overrides, read_file, suggestion
from engine.config.imagenet import IMAGENET, ImageNetConfig
from engine.config.schema import Schema

__all__ = [
    "COCO",
    "IMAGENET",
    "CocoConfig",
    "ConfigError",
    "ImageNetConfig",
    "config_hash",
    "config_to_dict",
    "experiment_values",
    "load_config",
    "network_values",
]


class RunConfig(Protocol):
    """What the configurations of both trainers have."""

    output: str


C = TypeVar("C", bound=RunConfig)

# Keys that say where and how a run is executed, not what is computed: they may change when a run is resumed.
_NOT_THE_EXPERIMENT = ("output", "data.root", "data.workers", "runtime.")
_PART_OF_IT_ALL_THE_SAME = ("runtime.amp",)
# Keys that came later, with the value that does what was done before: an experiment with that value is
# described without the key, so that older runs can be resumed and older records stay of the same experiment.
_WITHOUT_EFFECT = {"data.shrink_px": 0}


def load_config(path: str | Path, overrides: Sequence[str], schema: Schema[C]) -> C:
    """Read a YAML file with all it inherits, lay the `key=value` overrides over it, and check the result.

    `schema` is IMAGENET or COCO.

    Raises ConfigError, which names the file, the dotted key, what came and what was expected.
    """
    path = Path(path)
    entries = read_file(path) | parse_overrides(overrides)
    tree = OmegaConf.structured(schema.kind)
    keys = _leaves(OmegaConf.to_container(tree))
    for key, entry in entries.items():
        _assign(tree, key, entry, keys, schema.kind)
    config = _to_object(tree, path, schema.kind)
    config.output = config.output or f"runs/{path.stem}"
    _check(config, schema, {key: entry.source for key, entry in entries.items()}, str(path))
    return config


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return the configuration as nested dicts of str, int, float, bool and lists of int."""
    return dataclasses.asdict(config)


def experiment_values(config: RunConfig) -> dict[str, Any]:
    """Return {dotted key: value} of every key that defines the experiment.

    Left out: the run folder, where the data lie, worker processes, all of `runtime` but `amp`, and keys that
    came later and have no effect.
    """
    return {
        key: value
        for key, value in _leaves(config_to_dict(config)).items()
        if key in _PART_OF_IT_ALL_THE_SAME or not key.startswith(_NOT_THE_EXPERIMENT)
        if key not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[key]
    }


def network_values(config: RunConfig) -> dict[str, Any]:
    """Return those of `experiment_values` that a checkpoint's weights must share with the network."""
    chosen = ("model.", "activation.")
    return {key: value for key, value in experiment_values(config).items() if key.startswith(chosen)}


def config_hash(config: RunConfig) -> str:
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


def _assign(tree: DictConfig, key: str, entry: Entry, keys: Mapping[str, Any], root: type) -> None:
    """Put one value, given as text, into the typed tree."""
    if key not in keys:
        inside = [known for known in keys if known.startswith(key + ".")]
        if inside:
            raise ConfigError(
                f"{entry.source}: {key!r} is a section, not a value; its keys: {', '.join(inside)}"
            )
        raise ConfigError(f"{entry.source}: unknown key {key!r}{suggestion(key, keys)}")
    kind = _type_of(key, root)
    try:
        OmegaConf.update(tree, key, _parse_list(entry.text) if get_origin(kind) is list else entry.text)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        expected = _TYPES[kind]
        raise ConfigError(f"{entry.source}: {key}: expected {expected}, got {entry.text!r}") from error


_TYPES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    list[int]: "whole numbers, such as [210000, 250000]",
}


def _type_of(key: str, root: type) -> Any:
    kind: Any = root
    for name in key.split("."):
        kind = {field.name: field.type for field in dataclasses.fields(kind)}[name]
    return kind


def _parse_list(text: str) -> list[Any]:
    """Read `[1, 2]`. Raises YAMLError for anything else; the types of the entries are checked later."""
    value = yaml.safe_load(text)
    if not isinstance(value, list):
        raise yaml.YAMLError("not a list")
    return value


def _to_object(tree: DictConfig, path: Path, kind: type[C]) -> C:
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
    assert isinstance(config, kind)
    return config


def _check(config: C, schema: Schema[C], sources: Mapping[str, str], path: str) -> None:
    """Raise ConfigError for the first value out of its range and for combinations that cannot work."""
    for key, value in _leaves(config_to_dict(config)).items():
        where = f"{sources.get(key, path)}: {key}"
        choices = schema.choices.get(key)
        if choices and value not in choices:
            raise ConfigError(
                f"{where}: expected one of {', '.join(choices)}, got {value!r}{suggestion(value, choices)}"
            )
        if key in schema.bounds and not schema.bounds[key][1](value):
            raise ConfigError(f"{where}: expected {schema.bounds[key][0]}, got {value!r}")
        if value == "":
            raise ConfigError(f"{where}: expected a word, got nothing")
    for keys, sentence in schema.conflicts(config):
        given_there = COMMAND_LINE in [sources.get(key) for key in keys]
        raise ConfigError(f"{COMMAND_LINE if given_there else path}: {sentence}")

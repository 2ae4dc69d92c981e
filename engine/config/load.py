"""Turn a YAML file and `key=value` words into the checked, typed configuration of one of the trainers.

The configuration object stops at the training programs; what is below them takes single values, or a section
that it owns (`OptimizerOptions`, for example).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.config.coco import COCO, CocoConfig
from engine.config.experiment import Experiment, experiment_of
from engine.config.files import COMMAND_LINE, ConfigError, Entry, leaves, parse_overrides, read_file
from engine.config.imagenet import IMAGENET, ImageNetConfig
from engine.config.schema import C, Schema
from pwlu.suggestion import did_you_mean, expected_one_of

__all__ = [
    "COCO",
    "IMAGENET",
    "CocoConfig",
    "ConfigError",
    "Experiment",
    "ImageNetConfig",
    "experiment_of",
    "load_config",
]

_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    list[int]: "whole numbers, such as [210000, 250000]",
}


def load_config(path: str | Path, overrides: Sequence[str], schema: Schema[C]) -> C:
    """Read a YAML file with all it inherits, lay the `key=value` overrides over it, and check the result.

    `schema` is IMAGENET or COCO. Raises ConfigError, which names the file, the dotted key, what came and what
    was expected.
    """
    path = Path(path)
    entries = {"output": Entry(f"runs/{path.stem}", str(path))} | read_file(path) | parse_overrides(overrides)
    tree, types = _empty_tree(schema.kind), _types(schema.kind)
    for key, entry in entries.items():
        if key not in types:
            raise ConfigError(f"{entry.source}: {_unknown(key, types, schema.renamed)}")
        _assign(tree, key, entry, types[key])
    config = _to_object(tree, path, schema.kind)
    _check(config, schema, {key: entry.source for key, entry in entries.items()}, str(path))
    return config


def _empty_tree(kind: type) -> DictConfig:
    """Return a typed tree with the defaults; it can be written to though the dataclasses are frozen."""
    tree = OmegaConf.structured(kind)
    OmegaConf.set_readonly(tree, False)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            tree[field.name] = OmegaConf.structured(field.type)
            OmegaConf.set_readonly(tree[field.name], False)
    return tree


def _types(kind: Any) -> dict[str, Any]:
    """Return the type of every value by dotted key."""
    types: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        inside = _types(field.type) if dataclasses.is_dataclass(field.type) else {}
        types |= {f"{field.name}.{key}": kind for key, kind in inside.items()} or {field.name: field.type}
    return types


def _unknown(key: str, known: Mapping[str, Any], renamed: Mapping[str, str]) -> str:
    if key in renamed:
        return f"the key {key!r} is called {renamed[key]!r} now"
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        return f"{key!r} is a section, not a value; its keys: {', '.join(inside)}"
    return f"unknown key {key!r}{did_you_mean(key, known)}"


def _assign(tree: DictConfig, key: str, entry: Entry, kind: Any) -> None:
    """Put one value, given as text, into the typed tree."""
    try:
        value = entry.text
        if get_origin(kind) is list:  # OmegaConf checks the types of the items
            value = yaml.safe_load(entry.text)
            if not isinstance(value, list):
                raise yaml.YAMLError("not a list")
        OmegaConf.update(tree, key, value)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(
            f"{entry.source}: {key}: expected {_TYPE_NAMES[kind]}, got {entry.text!r}"
        ) from error


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
    for key, value in leaves(dataclasses.asdict(config)).items():
        source = sources.get(key, path)
        if key in schema.choices and value not in schema.choices[key]:
            raise ConfigError(f"{source}: {expected_one_of(key, value, schema.choices[key])}")
        if key in schema.bounds and not schema.bounds[key][1](value):
            raise ConfigError(f"{source}: {key}: expected {schema.bounds[key][0]}, got {value!r}")
        if value == "":
            raise ConfigError(f"{source}: {key}: expected a word, got nothing")
    for keys, sentence in schema.conflicts(config):
        on_command_line = COMMAND_LINE in [sources.get(key) for key in keys]
        raise ConfigError(f"{COMMAND_LINE if on_command_line else path}: {sentence}")

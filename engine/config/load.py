"""Turn a YAML file and `key=value` words into the checked, typed configuration of one of the trainers.

The configuration object stops at `build` and `train` of the training programs: what is below takes single
values, or a section that it owns (`OptimizerOptions`, for example).
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from engine.config.coco import COCO, CocoConfig
from engine.config.experiment import STARTING_FILE, experiment_of
from engine.config.files import COMMAND_LINE, ConfigError, Entry, parse_overrides, read_file
from engine.config.imagenet import IMAGENET, ImageNetConfig
from engine.config.schema import C, Schema
from engine.paths import PathError, WrittenPath, written_path
from pwlu.suggestion import did_you_mean, expected_one_of

__all__ = [
    "COCO",
    "IMAGENET",
    "CocoConfig",
    "ConfigError",
    "ImageNetConfig",
    "experiment_of",
    "load_config",
]


def load_config(path: str | Path, overrides: Sequence[str], schema: Schema[C]) -> C:
    """Read a YAML file with all it inherits, lay the `key=value` overrides over it, and check the result.

    `schema` is IMAGENET or COCO. Raises ConfigError, which names the file, the dotted key, what came and what
    was expected.
    """
    path = Path(path)
    entries = {"output": Entry(f"runs/{path.stem}", str(path))} | read_file(path) | parse_overrides(overrides)
    fields = _fields(schema.kind)
    for key, entry in entries.items():
        if key not in fields:
            raise ConfigError(f"{entry.source}: {_unknown(key, fields, schema.renamed)}")
    missing = sorted(key for key, field in fields.items() if not _has_default(field) and key not in entries)
    if missing:
        raise ConfigError(
            f"{path}: no value for {', '.join(missing)}; add it to the file or as {missing[0]}=..."
        )
    texts = {key: str(field.default) for key, field in fields.items() if _has_default(field)}
    texts |= {key: entry.text for key, entry in entries.items()}
    config: C = _section(schema.kind, entries, texts)
    for keys, sentence in schema.conflicts(config):
        on_command_line = any(key in entries and entries[key].source == COMMAND_LINE for key in keys)
        raise ConfigError(f"{COMMAND_LINE if on_command_line else path}: {sentence}")
    return config


def _fields(kind: Any, prefix: str = "") -> dict[str, dataclasses.Field[Any]]:
    fields: dict[str, dataclasses.Field[Any]] = {}
    for field in dataclasses.fields(kind):
        key = prefix + field.name
        fields |= _fields(field.type, f"{key}.") if dataclasses.is_dataclass(field.type) else {key: field}
    return fields


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING


def _unknown(key: str, known: Mapping[str, Any], renamed: Mapping[str, str]) -> str:
    if key in renamed:
        return f"the key {key!r} is called {renamed[key]!r} now"
    if key.replace("-", "_") == STARTING_FILE:
        return f"{key!r} is no key but an argument: --init-from CHECKPOINT"
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        return f"{key!r} is a section, not a value; its keys: {', '.join(inside)}"
    return f"unknown key {key!r}{did_you_mean(key, known)}"


def _section(kind: Any, entries: Mapping[str, Entry], texts: Mapping[str, str], prefix: str = "") -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        key = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            values[field.name] = _section(field.type, entries, texts, f"{key}.")
        elif key in entries:
            values[field.name] = _value(key, field.type, entries[key].source, texts)
    return kind(**values)


def _value(key: str, kind: Any, source: str, texts: Mapping[str, str]) -> Any:
    text = _resolved(key, source, texts) if "${" in texts[key] else texts[key]
    plain, *all_bounds = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if get_origin(plain) is Literal:
        if text not in get_args(plain):
            raise ConfigError(f"{source}: {expected_one_of(key, text, get_args(plain))}")
        return text
    words, parse = _TYPES[plain]
    try:
        value = parse(text)
    except PathError as error:
        raise ConfigError(f"{source}: {key}: {error}") from error
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{source}: {key}: expected {words}, got {text!r}") from error
    for bounds in all_bounds:
        if not bounds.hold(value):
            raise ConfigError(f"{source}: {key}: expected {bounds.words}, got {value!r}")
    return value


def _resolved(key: str, source: str, texts: Mapping[str, str], chain: tuple[str, ...] = ()) -> str:
    """Return the text of a key, with the texts of others in the place of references such as ${epochs}."""
    if key not in texts or key in chain:
        problem = "in a circle" if key in chain else f"{key!r} has no value{did_you_mean(key, texts)}"
        if key in os.environ:
            problem += f"; for the variable of the environment write ${key}"
        raise ConfigError(f"{source}: {chain[0]}: cannot use the reference ${{{key}}}: {problem}")
    return re.sub(
        r"\$\{([\w.]+)\}", lambda found: _resolved(found[1], source, texts, (*chain, key)), texts[key]
    )


def _word(text: str) -> str:
    if not text:
        raise ValueError("empty")
    return text


def _whole_numbers(text: str) -> list[int]:
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError("not a list")
    inner = text[1:-1].strip()
    return [int(item) for item in inner.removesuffix(",").split(",")] if inner else []


# YAML's words, and what one types on a command line.
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "y", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "n", "0"), False
)
_TYPES: dict[Any, tuple[str, Any]] = {
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("true or false", lambda text: _BOOLEANS[text.lower()]),
    str: ("a word", _word),
    WrittenPath: ("a path", written_path),
    list[int]: ("whole numbers, such as [210000, 250000]", _whole_numbers),
}

"""Tables of configuration keys for docs/configuration.md, from the dataclasses and the comments in them."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

from engine.config.schema import Schema

_TYPES: dict[Any, str] = {bool: "`true`, `false`", str: "a word", list[int]: "whole numbers"}


def keys_table(schema: Schema[Any]) -> list[str]:
    """Return every key of a kind of configuration with its default, its allowed values and its meaning."""
    lines = ["| key | default | may be | what |", "| --- | --- | --- | --- |"]
    for key, field, meaning in _keys(schema.kind):
        words = schema.choices.get(key, ())
        default = "" if field.default is dataclasses.MISSING else f"`{_as_written(field.default)}`"
        if words:
            allowed = ", ".join(f"`{word}`" for word in words)
            meaning = meaning.removeprefix(" | ".join(words)).removeprefix(": ")
        else:
            allowed = schema.bounds[key][0] if key in schema.bounds else _TYPES[field.type]
        meaning = meaning.replace("|", "or").replace("<", "&lt;")
        lines.append(f"| `{key}` | {default} | {allowed} | {meaning} |")
    return lines


def _keys(kind: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], str]]:
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        section = types[field.name]
        if dataclasses.is_dataclass(section):
            assert isinstance(section, type)
            yield from _keys(section, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field, _comment(kind, field.name)


def _comment(kind: type, name: str) -> str:
    """Return the comment beside the field or on the line before, else that of the field it overrides."""
    for base in inspect.getmro(kind)[:-1]:
        source = inspect.getsource(base)
        beside = re.search(rf"^    {name}: .*?  # (.*)$", source, re.MULTILINE)
        before = re.search(rf"^    # (.*)\n    {name}: ", source, re.MULTILINE)
        if found := beside or before:
            return found[1]
    return ""


def _as_written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Tables of configuration keys for docs/configuration.md, from the dataclasses and the comments in them."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from engine.config.schema import Schema
from engine.paths import WrittenPath

_TYPES: dict[Any, str] = {
    bool: "`true`, `false`",
    str: "a string",
    WrittenPath: "a path",
    list[int]: "whole numbers",
}


def keys_table(schema: Schema[Any]) -> list[str]:
    """Return every key of a kind of configuration with its default, its allowed values and its meaning."""
    lines = ["| key | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for key, field, meaning in _keys(schema.kind):
        default = "" if field.default is dataclasses.MISSING else f"`{_as_written(field.default)}`"
        allowed = _allowed(field.type)
        meaning = meaning.replace("|", "or").replace("<", "&lt;")
        lines.append(f"| `{key}` | {default} | {allowed} | {meaning} |")
    return lines


def _allowed(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if get_origin(kind) is Annotated:
        return ", ".join(bounds.words for bounds in kind.__metadata__)
    return _TYPES[kind]


def _keys(kind: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], str]]:
    for field in dataclasses.fields(kind):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _keys(field.type, f"{prefix}{field.name}.")
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

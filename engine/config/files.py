"""Read configuration sources: YAML files with `base:` inheritance, and `key=value` words.

Every value is kept as the text the user wrote. The schema's type decides later what the text means, so `1e-4`
is a number (plain YAML reads a string) and `amp: off` is a word (plain YAML reads False).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.processes.program import UserError
from pwlu.suggestion import did_you_mean

COMMAND_LINE = "command line"


class ConfigError(UserError, ValueError):
    """A configuration the user has to change; the message says where, what came and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One value as written, and the file (or the command line) that says so."""

    text: str
    source: str


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay text and whose mappings may not name a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        mapping: dict[Hashable, object] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            place = f"line {key_node.start_mark.line + 1}: the key {key!r}"
            if not isinstance(key, str) or "." in key:
                raise yaml.YAMLError(f"{place} is not one plain word; write sections as nested lines")
            if key in mapping:
                raise yaml.YAMLError(f"{place} appears twice")
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def read_file(path: Path, inherited_by: tuple[Path, ...] = ()) -> dict[str, Entry]:
    """Return the entries of a YAML file by dotted key, laid over those of its `base:` files.

    `inherited_by` is the chain of files that led here. Raises ConfigError for a missing or unreadable file, a
    cycle of bases, and anything but scalars and lists of scalars in nested mappings.
    """
    if path.resolve() in [parent.resolve() for parent in inherited_by]:
        chain = " -> ".join(str(step) for step in (*inherited_by, path))
        raise ConfigError(f"{path}: the files inherit from each other in a circle: {chain}")
    document = _parse(path, inherited_by)
    bases = document.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(name, str) and name for name in bases):
        raise ConfigError(f"{path}: base: expected a file name or a list of file names, got {bases!r}")
    entries: dict[str, Entry] = {}
    for name in bases:  # the last one wins
        entries |= read_file(path.parent / name, (*inherited_by, path))
    for key, value in leaves(document).items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = f"[{', '.join(value)}]"
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key}: expected a value or a list of values, got {value!r}")
        entries[key] = Entry(value, str(path))
    return entries


def _parse(path: Path, inherited_by: tuple[Path, ...]) -> dict[str, Any]:
    """Return a YAML file as nested dicts and lists of strings."""
    try:
        # _TextLoader is a BaseLoader: it makes nothing but strings, lists and dicts
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)
    except OSError as error:
        wanted_by = f" (base of {inherited_by[-1]})" if inherited_by else ""
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.yaml")))
        raise ConfigError(f"{path}: cannot read it{wanted_by}: {error.strerror}{near}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not document:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got a {type(document).__name__}")
    return document


def parse_overrides(words: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of `key=value` words; everything after the first `=` is the value.

    Raises ConfigError for a word without `=` and for `base=...`.
    """
    entries: dict[str, Entry] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {word!r}")
        if key == "base":
            raise ConfigError(f"{COMMAND_LINE}: {word}: only a file has a base; pass --config {text} instead")
        entries[key] = Entry(text, COMMAND_LINE)
    return entries


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of nested dicts."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat

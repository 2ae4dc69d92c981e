"""Read configuration sources: YAML files with `base:` inheritance, and `key=value` words.

Every value is kept as the text the user wrote. The type of its key decides later what the text means, so
`1e-4` is a number (plain YAML reads a string) and `amp: off` is a word (plain YAML reads False).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from engine.errors import UserError
from engine.paths import PathError, written_path
from pwlu.suggestion import did_you_mean

COMMAND_LINE = "command line"


class ConfigError(UserError, ValueError):
    """A configuration the user has to change; the message says where, what came and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One value as written, and the file (or the command line) that says so."""

    text: str
    source: str


def read_file(path: Path, inherited_by: tuple[Path, ...] = ()) -> dict[str, Entry]:
    """Return the entries of a YAML file by dotted key, laid over those of its `base:` files.

    `inherited_by` is the chain of files that led here. Raises ConfigError for a missing or unreadable file, a
    cycle of bases, and anything but scalars and lists of scalars in nested mappings.
    """
    if path.resolve() in [parent.resolve() for parent in inherited_by]:
        chain = " -> ".join(str(step) for step in (*inherited_by, path))
        raise ConfigError(f"{path}: the files inherit from each other in a circle: {chain}")
    try:
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        wanted_by = f" (base of {inherited_by[-1]})" if inherited_by else ""
        others = [] if path.exists() else [file.name for file in path.parent.glob("*.yaml")]
        near = did_you_mean(path.name, others)
        raise ConfigError(f"{path}: cannot read it{wanted_by}: {error.strerror}{near}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if document is None:  # an empty file
        return {}
    own = _entries(document, path)
    entries: dict[str, Entry] = {}
    if "base" in own:
        for name in own.pop("base").text.strip("[]").split(", "):  # the last one wins
            try:
                base = path.parent / written_path(name)
            except PathError as error:
                raise ConfigError(f"{path}: base: {error}") from error
            entries |= read_file(base, (*inherited_by, path))
    return entries | own


def _entries(node: yaml.Node, path: Path, prefix: str = "") -> dict[str, Entry]:
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{path}: expected `key: value` lines, got a {type(node).__name__.removesuffix('Node').lower()}"
        )
    entries: dict[str, Entry] = {}
    names: set[str] = set()
    for key_node, value in node.value:
        name, key = key_node.value, f"{prefix}{key_node.value}"
        place = f"{path}: line {key_node.start_mark.line + 1}: the key {name!r}"
        if not isinstance(name, str) or "." in name:
            raise ConfigError(f"{place} is not one plain word; write sections as nested lines")
        if name in names:
            raise ConfigError(f"{place} appears twice")
        names.add(name)
        if isinstance(value, yaml.ScalarNode):
            entries[key] = Entry(value.value, str(path))
        elif isinstance(value, yaml.MappingNode) and key != "base":
            entries |= _entries(value, path, f"{key}.")
        elif isinstance(value, yaml.SequenceNode) and all(
            isinstance(item, yaml.ScalarNode) for item in value.value
        ):
            entries[key] = Entry(f"[{', '.join(item.value for item in value.value)}]", str(path))
        else:
            raise ConfigError(f"{place}: expected a value or a list of values")
    return entries


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

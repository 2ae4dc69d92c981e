"""Reading of configuration sources: YAML files with `base:` inheritance, and `key=value` words.

Every value is kept as the text the user wrote, together with the place it came from. The schema's type
decides later what the text means, so `1e-4` is a number (plain YAML reads a string) and `amp: off` is a word
(plain YAML reads False).
"""

import difflib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

COMMAND_LINE = "command line"


class ConfigError(ValueError):
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


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of `known`, or nothing where none is near."""
    names = list(known)
    same_leaf = [name for name in names if name.split(".")[-1] == word.split(".")[-1]]
    near = same_leaf or difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def read_file(path: Path, inherited_by: tuple[Path, ...] = ()) -> dict[str, Entry]:
    """Return the dotted keys of a YAML file over those of its `base:` files, the last base on top.

    `inherited_by` is the chain of files that led here. Raises ConfigError for a missing or unreadable file, a
    cycle of bases, and anything but scalars and lists of scalars in nested mappings.
    """
    if path.resolve() in [parent.resolve() for parent in inherited_by]:
        chain = " -> ".join(str(step) for step in (*inherited_by, path))
        raise ConfigError(f"{path}: the files inherit from each other in a circle: {chain}")
    document = _parse(path, inherited_by)
    entries: dict[str, Entry] = {}
    for base in _bases(document.pop("base", []), path):
        entries |= read_file(base, (*inherited_by, path))
    entries |= _flatten(document, str(path))
    return entries


def _parse(path: Path, inherited_by: tuple[Path, ...]) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        wanted_by = f" (base of {inherited_by[-1]})" if inherited_by else ""
        near = suggestion(path.name, (file.name for file in path.parent.glob("*.yaml")))
        raise ConfigError(f"{path}: cannot read it{wanted_by}: {error.strerror}{near}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8: {error}") from error
    try:
        # _TextLoader is a BaseLoader: it makes nothing but strings, lists and dicts
        document = yaml.load(text, Loader=_TextLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if document is None or document == "":
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got a {type(document).__name__}")
    return document


def _bases(value: object, path: Path) -> list[Path]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{path}: base: expected a file name or a list of file names, got {value!r}")
    return [path.parent / name for name in names]


def _flatten(mapping: Mapping[str, object], source: str, prefix: str = "") -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, value in mapping.items():
        key = prefix + name
        if isinstance(value, dict):
            entries |= _flatten(value, source, key + ".")
        elif isinstance(value, str):
            entries[key] = Entry(value, source)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            entries[key] = Entry(f"[{', '.join(value)}]", source)
        else:
            raise ConfigError(f"{source}: {key}: expected a value or a list of values, got {value!r}")
    return entries


def parse_overrides(words: Sequence[str]) -> dict[str, Entry]:
    """Return the dotted keys of `key=value` words; everything after the first `=` is the value.

    Raises ConfigError for a word without `=` and for `base=...`.
    """
    entries: dict[str, Entry] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {word!r}")
        if key == "base":
            raise ConfigError(
                f"{COMMAND_LINE}: base={text}: bases stand in files; pass --config {text} instead"
            )
        entries[key] = Entry(text, COMMAND_LINE)
    return entries

"""Paths as users write them, in a YAML file or on a command line."""

import os
import re
from pathlib import Path
from typing import NewType

from engine.errors import UserError

WrittenPath = NewType("WrittenPath", str)
_NO_PATHS = ("null", "none", "true", "false", "yes", "no", "on", "off")


class PathError(UserError, ValueError):
    """What was written is no path; the message says why."""


def written_path(text: str) -> WrittenPath:
    """Return a path with `~`, `~user` and `$VARIABLE` in full: a shell leaves them in `key=~/x`, YAML always.

    Raises PathError for what would become a folder of a name that nobody wants: YAML's words for nothing, yes
    and no, a list or mapping, an address, a variable that is not set, blanks or quotation marks at an end.
    """
    if not text.strip() or text == "~":  # YAML's word for nothing
        raise PathError(f"expected a path, got {text!r}")
    if text.lower() in _NO_PATHS:
        raise PathError(f"expected a path, got {text!r}; if it has that name, write ./{text}")
    if text != text.strip():
        raise PathError(f"expected a path without blanks at its ends, got {text!r}")
    if re.search("[\0-\x1f\\\\\ud800-\udfff]|://", text) or re.match(r"\[.*]$|\{.*}$|['\"]", text):
        raise PathError(f"expected one path of this machine, got {text!r}")
    full = re.sub(r"\$(\w+|\{\w+\})", _of_environment, os.path.expanduser(text))
    if "$" in full or "~" in Path(full).parts or full.startswith("~"):
        raise PathError(f"expected a path, got {text!r}, in which a shell's words are left; write it out")
    return WrittenPath(full)


def _of_environment(found: re.Match[str]) -> str:
    name = found[1].strip("{}")
    if not os.environ.get(name):
        raise PathError(f"expected a path, got {found.string!r}, but the environment has no {name}")
    return os.environ[name]

"""What to tell a user whose word is not one of the known ones."""

import difflib
from collections.abc import Iterable


def expected_one_of(name: str, value: object, known: Iterable[str]) -> str:
    """Return "NAME is 'valu', expected one of a, value; did you mean 'value'?"."""
    names = list(known)
    return f"{name} is {value!r}, expected one of {', '.join(names)}{did_you_mean(value, names)}"


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'value'?" for the nearest known name, or "" where none is near."""
    word, names = str(value), list(known)
    # Of dotted names, one that ends alike is nearest: `peak_lr` is `optimizer.peak_lr`.
    same_end = [name for name in names if name.split(".")[-1] == word.split(".")[-1]]
    near = same_end or [
        *difflib.get_close_matches(word, names, n=1),
        *difflib.get_close_matches(word.lower(), names, n=1),
    ]
    return f"; did you mean {near[0]!r}?" if near else ""

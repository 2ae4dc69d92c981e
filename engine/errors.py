"""Errors that a user can mend."""

import dis
import errno
from types import TracebackType

OWN_PACKAGES = ("engine", "models", "pwlu", "pwlu_ext", "tools", "train_imagenet", "train_coco", "__main__")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """An error whose message tells the user what to do."""

    on_every_process = True  # of a run that is under way; else one may meet it alone


def sentence_of(error: Exception) -> str | None:
    """Return what to tell a user who can mend an error; None for one that needs its traceback."""
    if isinstance(error, UserError) or (isinstance(error, ValueError) and _is_refusal(error.__traceback__)):
        return str(error)
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _NO_ROOM):
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        remedy = "; make room there, then give the same command again" * (error.errno in _NO_ROOM)
        return f"{names or 'a file that was being written'}: {error.strerror}{remedy}"
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):  # it was killed
        remedy = "for want of memory, give fewer data.workers; the same command goes on"
        return f"{str(error).strip()} If the kernel did that {remedy}"
    return None


def _is_refusal(place: TracebackType | None) -> bool:
    """Return whether a `raise` of this project made an error: its words are for the user.

    A ValueError of a library, or of a call such as int(), is a crash.
    """
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    frame, code = place.tb_frame, place.tb_frame.f_code.co_code
    is_ours = frame.f_globals.get("__name__", "").split(".")[0] in OWN_PACKAGES
    return is_ours and code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]

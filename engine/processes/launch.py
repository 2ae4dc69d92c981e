"""Start and end of a training program: exit statuses, and errors readable among many processes."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from engine.processes.distributed import MainProcessError

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal and saved; run the same command again
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as a shell reports Ctrl-C


def launch(main: Callable[[], int], expected: tuple[type[Exception], ...]) -> NoReturn:
    """Run `main` and leave with the status it returns.

    An exception of an `expected` kind (a message to the user, the same on every process) is printed as one
    line by the main process. A ValueError is one line from every process it happens on, with the place that
    raised it; anything else comes with its whole traceback. A process that failed leaves at once, without the
    usual tidying up, which may wait for ever for processes that are gone; torchrun then ends the others.
    """
    rank = int(os.environ.get("RANK", 0))
    try:
        status = main()
    except KeyboardInterrupt:
        _leave(
            EXIT_INTERRUPTED,
            "interrupted; the same command goes on from the last checkpoint" if rank == 0 else "",
        )
    except MainProcessError:
        _leave(EXIT_FAILED, "")  # the main process says what happened
    except expected as error:
        _leave(EXIT_FAILED, f"error: {error}" if rank == 0 else "")
    except ValueError as error:
        origin = traceback.extract_tb(error.__traceback__)[-1]
        _leave(
            EXIT_FAILED,
            f"error in process {rank}: {error} ({os.path.relpath(origin.filename)}:{origin.lineno})",
        )
    except Exception as error:
        _leave(
            EXIT_FAILED, f"{traceback.format_exc()}error in process {rank}: {type(error).__name__}: {error}"
        )
    sys.exit(status)


def _leave(status: int, message: str) -> NoReturn:
    sys.stdout.flush()
    if message:
        print(message, file=sys.stderr)
    sys.stderr.flush()
    os._exit(status)

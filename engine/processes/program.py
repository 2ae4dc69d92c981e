"""A training program around its `main`: command line, processes and exit status."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from engine.errors import UserError
from engine.processes import distributed
from engine.processes.distributed import MainProcessError, World
from engine.processes.preemption import StopRequest

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal and saved; run the same command again
EXIT_INTERRUPTED = 130  # as a shell reports Ctrl-C


@dataclass(frozen=True)
class Arguments:
    """`--config FILE [--eval CHECKPOINT] [key=value ...]`."""

    config: Path
    checkpoint: Path | None
    overrides: list[str]


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> Arguments:
    """Read the command line (the process's own if `argv` is None); leave with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument(
        "--eval", type=Path, metavar="CHECKPOINT", help="evaluate these weights instead of training"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the file's")
    parsed = parser.parse_intermixed_args(argv)
    return Arguments(parsed.config, parsed.eval, parsed.overrides)


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[tuple[World, StopRequest]]:
    """Join the processes of the run, and listen to signals that ask it to stop, for the block."""
    world = distributed.start(device)
    with StopRequest() as stop:
        yield world, stop
    distributed.stop()  # not after an error: it may wait for ever for processes that are gone


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Leave the process with the status that `main` returns, or with an error a person can read.

    A UserError is one line of the main process. A ValueError is one line of every process it happens on, with
    the place that raised it; anything else comes with its whole traceback.
    """
    rank = int(os.environ.get("RANK", 0))
    try:
        status = main()
    except KeyboardInterrupt:
        message = "interrupted; the same command goes on from the last checkpoint"
        _leave(EXIT_INTERRUPTED, message if rank == 0 else "")
    except MainProcessError:
        _leave(EXIT_FAILED, "")  # the main process says what happened
    except UserError as error:
        _leave(EXIT_FAILED, f"error: {error}" if rank == 0 else "")
    except ValueError as error:
        origin = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.relpath(origin.filename)}:{origin.lineno}"
        _leave(EXIT_FAILED, f"error in process {rank}: {error} ({place})")
    except Exception as error:
        message = f"error in process {rank}: {type(error).__name__}: {error}"
        _leave(EXIT_FAILED, traceback.format_exc() + message)
    sys.exit(status)


def _leave(status: int, message: str) -> NoReturn:
    """Leave at once: tidying up may wait for ever for processes that are gone; torchrun ends the others."""
    sys.stdout.flush()
    if message:
        print(message, file=sys.stderr)
    sys.stderr.flush()
    os._exit(status)

"""A training program around its `main`: command line, processes and exit status."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import sentence_of
from engine.paths import PathError, written_path
from engine.processes import distributed
from engine.processes.distributed import MainProcessError, World
from engine.processes.failure import report_failure
from engine.processes.launcher import end_with_launcher
from engine.processes.preemption import StopRequest

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped by a signal and saved; run the same command again
EXIT_INTERRUPTED = 130  # as a shell reports Ctrl-C


@dataclass(frozen=True)
class Arguments:
    """`--config FILE [--eval CHECKPOINT | --init-from CHECKPOINT] [key=value ...]`."""

    config: Path
    checkpoint: Path | None
    init_from: Path | None
    overrides: list[str]


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> Arguments:
    """Read the command line (the process's own if `argv` is None); leave with a message if it is wrong."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=to_path, required=True, metavar="FILE", help="a file of configs/")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--eval", type=to_path, metavar="CHECKPOINT", help="evaluate these weights instead of training"
    )
    weights.add_argument(
        "--init-from",
        type=to_path,
        metavar="CHECKPOINT",
        help="start from these weights: of a run, or a state dict of a timm network",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the file's")
    parsed = parser.parse_intermixed_args(argv)
    return Arguments(parsed.config, parsed.eval, parsed.init_from, parsed.overrides)


def to_path(text: str) -> Path:
    """Return the path that a word of a command line names, for argparse."""
    try:
        return Path(written_path(text))
    except PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@contextlib.contextmanager
def errors_told_by(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Leave by the parser, with its message, where the block raises what a user can mend."""
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        parser.error(sentence)


class _Parser(argparse.ArgumentParser):
    """Refuses a wrong command line once for all processes of a machine."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            super()._print_message(message, file)


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[tuple[World, StopRequest]]:
    """Join the processes of the run, and listen to signals that ask it to stop, for the block."""
    world = distributed.start(device)
    with StopRequest() as stop:
        yield world, stop
    distributed.stop()  # not after an error: it may wait for ever for processes that are gone


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Leave the process with the status that `main` returns, or say what the user should know of an error."""
    end_with_launcher(EXIT_FAILED)
    try:
        status = main()
    except KeyboardInterrupt:
        if int(os.environ.get("RANK", 0)) == 0:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        _leave(EXIT_INTERRUPTED)
    except MainProcessError:
        _leave(EXIT_FAILED)  # the main process says what happened
    except Exception as error:
        report_failure(error)
        _leave(EXIT_FAILED)
    sys.exit(status)


def _leave(status: int) -> NoReturn:
    """Leave at once: tidying up may wait for ever for processes that are gone; torchrun ends the others."""
    with contextlib.suppress(OSError):  # a log on a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)

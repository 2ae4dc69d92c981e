"""What a run tells its user: messages, warnings, a line per logged step, realignment and evaluation."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from engine.evaluation import Record

T = TypeVar("T")


class Timing(NamedTuple):
    """How fast training was; `wait_share` is the part of the time, 0 to 1, that it waited for data."""

    steps_per_second: float
    wait_share: float


class Stopwatch:
    """Measures training steps, without evaluations and checkpoints between them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds = self._waited = 0.0
        self._steps = 0
        self._last = 0.0

    def start(self) -> None:
        self._last = self._clock()

    def lap(self) -> None:
        now = self._clock()
        self._seconds += now - self._last
        self._steps += 1
        self._last = now

    def waiting_for(self, data: Iterable[T]) -> Iterator[T]:
        """Yield the data, and measure how long they take to come."""
        iterator = iter(data)
        while True:
            asked = self._clock()
            try:
                one = next(iterator)
            except StopIteration:
                return
            self._waited += self._clock() - asked
            yield one

    def read(self) -> Timing:
        """Return the timing since the last reading."""
        seconds = max(self._seconds, 1e-9)
        timing = Timing(self._steps / seconds, self._waited / seconds)
        self._seconds = self._waited = 0.0
        self._steps = 0
        return timing


class Console:
    """Prints records as aligned lines; the time left is estimated from all since step `resume_step`."""

    def __init__(
        self,
        *,
        steps_per_epoch: int,
        total_steps: int,
        resume_step: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._epochs = f"{round(total_steps / steps_per_epoch, 2):g}"
        self._total_steps = total_steps
        self._resume_step = resume_step
        self._clock = clock
        self._began = clock()

    def __call__(self, record: Record) -> None:
        if record.kind == "train":
            say(self._train_line(record))
        elif record.kind == "eval":
            say(f"{self._place(record)}  validation: {metrics_line(record.values)}")
        elif record.kind == "realign":
            meaning = "PWLUs now cover their input, mean +- 3 std; phase II begins"
            say(f"{self._place(record)}  realignment: {meaning}")

    def _place(self, record: Record) -> str:
        epoch_width, step_width = len(self._epochs.split(".")[0]) + 2, len(str(self._total_steps))
        return (
            f"epoch {record.epoch:{epoch_width + 1}.2f}/{self._epochs}  "
            f"step {record.step:{step_width}d}/{self._total_steps}"
        )

    def _train_line(self, record: Record) -> str:
        values = record.values
        parts = [self._place(record)]
        if "phase" in values:
            parts.append("phase I " if values["phase"] == 1 else "phase II")
        parts.append(f"loss {values['loss']:7.4f}")
        parts.append(f"lr {values['lr']:.3e}")
        parts.append(f"{_short(values['images_per_second'])} images/s")
        parts.append(f"data {100 * values['data_wait']:2.0f} %")
        seconds_per_step = (self._clock() - self._began) / (record.step - self._resume_step)
        parts.append(f"ETA {_duration(seconds_per_step * (self._total_steps - record.step))}")
        return "  ".join(parts)


def say(text: str) -> None:
    """Print a message; of a run's processes only the main one does."""
    # Names of files and classes may hold what the terminal's encoding has not, or bytes that are no text.
    encoding = sys.stdout.encoding or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    print(printable, flush=True)  # a log file shows it while the run goes on


def warn(text: str) -> None:
    """Print a warning; any process of a run may, and those other than the main one give their rank."""
    rank = int(os.environ.get("RANK", 0))  # data loading processes inherit it
    say(f"WARNING: {text}" if rank == 0 else f"WARNING from process {rank}: {text}")


def warn_on_main(text: str) -> None:
    """Print a warning that every process of a run comes to; only the main one does."""
    if int(os.environ.get("RANK", 0)) == 0:
        warn(text)


EXAMPLES = 3  # of names in a sentence


def first_few(names: Sequence[str]) -> str:
    """Return the first names: `a, b, c, ...`."""
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")


def listed(names: Sequence[str]) -> str:
    """Return how many names there are, and the first: `24 (a, b, c, ...)`."""
    return f"{len(names)} ({first_few(names)})"


_warned: set[str] = set()


def warn_first_time(topic: str, text: str) -> None:
    """Print a warning unless this process has printed one of the same topic."""
    if topic not in _warned:
        _warned.add(topic)
        warn(text)


# COCO's averages by size and number of detections: eighteen numbers more, for the records alone.
_DETAIL = re.compile(r"_(AR\d*[sml]?|AP[sml])$")


def metrics_line(metrics: Mapping[str, float | int]) -> str:
    """Return metrics as a line, `top1 71.34 %  top5 ...`, without COCO's details."""
    return "  ".join(_metric(name, value) for name, value in metrics.items() if not _DETAIL.search(name))


def _metric(name: str, value: float | int) -> str:
    if "top" in name or "_AP" in name:
        return f"{name} {value:.2f} %"
    return f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"


def _short(rate: float) -> str:
    return f"{rate:6.0f}" if rate >= 100 else f"{rate:6.1f}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (
        f"{days}d {hours:02d}:{minutes:02d}:{seconds:02d}"
        if days
        else f"{hours:d}:{minutes:02d}:{seconds:02d}"
    )

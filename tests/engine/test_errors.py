import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from engine.data.source import DataError
from engine.errors import sentence_of
from engine.processes import distributed
from engine.tasks.image_task import derive_accumulation
from models.classification import check_timm_name


class Killing(Dataset[int]):
    """Samples that are too large for the machine's memory."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def error_of(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("there was no error")


def raise_it(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: raise_it(DataError("root: /x is not a folder")), "root: /x is not a folder"),
        (lambda: derive_accumulation(7, 2, 1), "global_batch_size=7 cannot be shared"),
        (lambda: check_timm_name("resnet19"), "model name is 'resnet19'"),
        (lambda: distributed.start("tpu"), "expected one of auto, cpu, cuda"),
        (lambda: Path("/nowhere/a.jpg").read_bytes(), "/nowhere/a.jpg: No such file or directory"),
        (lambda: Path("/dev/null/x").mkdir(), "/dev/null/x: Not a directory"),
        (
            lambda: raise_it(PermissionError(errno.EACCES, "Permission denied", "/x/last.pt")),
            "/x/last.pt: Permission denied",
        ),
        (lambda: raise_it(OSError(errno.ENOSPC, "No space left on device")), "make room"),
        (lambda: list(DataLoader(Killing(), num_workers=1)), "fewer data.workers"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(call: Callable[[], object], words: str) -> None:
    sentence = sentence_of(error_of(call))
    assert sentence is not None and words in sentence
    assert "Traceback" not in sentence and ".py" not in sentence


@pytest.mark.parametrize(
    "call",
    [
        lambda: raise_it(KeyError("key")),
        lambda: raise_it(RuntimeError("no kernel")),
        lambda: raise_it(ValueError("of a test, which is no code of the project")),
        lambda: int("ten"),
        lambda: json.loads("{"),
        lambda: np.zeros(2) + np.zeros(3),
        lambda: torch.nn.functional.batch_norm(torch.ones(1, 2), None, None, training=True),
        lambda: raise_it(OSError("no file and no number")),
        lambda: raise_it(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
    ],
)
def test_a_crash_keeps_its_traceback(call: Callable[[], object]) -> None:
    assert sentence_of(error_of(call)) is None

"""A record of tools.latency without measuring: two networks of Table 4, with times that tests know."""

from typing import Any

RATIOS = {
    "relu": 1.0,
    "swish": 1.1,
    "pwlu": 1.2,
    "pwlu (BatchNorm absorbed)": 0.9,
    "frelu": 1.5,
    "pau": 4.0,
}
RUNTIMES = {"eager": 20.0, "compile": 10.0}  # ReLU's time in ms
MODELS = ("resnet18", "mobilenetv3_small_100")


def latency_record(kinds: tuple[str, ...] = ("inference",)) -> dict[str, Any]:
    """Return a record whose times spread from 10 % below to 20 % above their median."""
    rows = [
        {
            "model": model,
            "activation": activation,
            "runtime": runtime,
            "p50_ms": relu_ms * ratio,
            "p10_ms": relu_ms * ratio * 0.9,
            "p90_ms": relu_ms * ratio * 1.2,
            "ratio_to_relu": ratio,
            "difference": 1e-6 * relu_ms,
        }
        for model in MODELS
        for activation, ratio in RATIOS.items()
        for runtime, relu_ms in RUNTIMES.items()
    ]
    arguments = {
        "image_size": 224,
        "batch_size": 64,
        "training_batch_size": 32,
        "training_amp": "off",
        "dtype": "float32",
        "channels_last": False,
        "iterations": 30,
        "warm_up": 3,
    }
    return {
        "benchmark": "latency",
        "arguments": arguments,
        "environment": {
            "hardware": {"device": "cpu", "cpu": "a processor", "threads_per_process": 2},
            "code": {"commit": "0123456789abcdef", "uncommitted_changes": False},
            "time_utc": "2026-01-02T03:04:05+00:00",
            "packages": {"torch": "2.14.1"},
            "command": ["latency.py", "--output", "x.json"],
        },
        "left_out": [],
        **{kind: rows if kind in kinds else [] for kind in ("inference", "training_step")},
    }

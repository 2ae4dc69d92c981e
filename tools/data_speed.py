"""Measure how many images of an image folder one core makes ready in a second, and how many cores GPUs need.

    python -m tools.data_speed data/imagenet --output results/benchmarks/data_speed.json
    python -m tools.data_speed data/imagenet --output FILE.json --gpus 8 --images-per-second resnet18=3000

One thread does what a loading process does; a round takes all images once in every decoder and transform.
Times are of the processor, so that waiting for a disk does not count. The page lies beside the record, .md.
"""

import argparse
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.datasets import ImageFolder

from engine.config.files import read_file
from engine.config.load import IMAGENET, load_config
from engine.data.decoding import DECODERS, decode_rgb, require_decoder
from engine.data.loader import ImageSample, image_batch
from engine.data.picture import to_tensor
from engine.data.sampler import isolated_rng, mix_seed
from engine.data.transforms import Transform, autoaugment_transform, eval_transform, photo_transform
from engine.files import write_text_atomically
from engine.processes.program import errors_told_by, to_path
from engine.runs.manifest import PROJECT, describe_start, short_commit
from pwlu_ext.benchmarks.page import table
from tools.records import add_record_option, positive, tool_parser

PARTS = ("read", "decode, crop and resize", "batch")
TRANSFORMS: dict[str, Callable[[int], Transform]] = {
    "decoding alone": lambda side: lambda picture: to_tensor(picture)[:, :1, :1],
    "standard": photo_transform,
    "autoaugment": autoaugment_transform,
    "evaluation": lambda side: eval_transform(side, 0.875),
}
TIMM = "timm's loader"
Row = dict[str, Any]
Way = Callable[[bytes], torch.Tensor]


def main() -> None:
    """Measure what the command line names; write and print the page."""
    parser = command_line()
    arguments = parser.parse_args()
    with errors_told_by(parser):
        record = measure(arguments)
        write_text_atomically(arguments.output, json.dumps(record, indent=1) + "\n")
        page = data_speed_page(record)
        write_text_atomically(arguments.output.with_suffix(".md"), page)
        print(page)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = tool_parser("data_speed", __doc__)
    add = result.add_argument
    add("root", type=to_path, help="the images: train/<class>/*.jpg")
    add_record_option(result)
    add("--images", type=positive, default=500, help="at most this many, evenly spread (500)")
    add("--image-size", type=positive, default=224, help="in pixels (224)")
    add("--batch-size", type=positive, default=64, help="(64)")
    add("--rounds", type=positive, default=5, help="that count, after one that does not (5)")
    add("--gpus", type=positive, default=8, help="for the cores that they need (8)")
    example = "what one GPU trains on, of a network of configs/: resnet18=3000"
    add("--images-per-second", nargs="+", type=rate, default=[], metavar="NAME=RATE", help=example)
    return result


def rate(text: str) -> tuple[str, float]:
    """Return name and number of `name=number`, for argparse."""
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected NAME=RATE, such as resnet18=3000, got {text!r}")
    return name, value


def measure(arguments: argparse.Namespace) -> Row:
    """Return the record. Raises ValueError for a network that is not in configs/ and for no images."""
    networks = networks_of_configs(dict(arguments.images_per_second))
    torch.set_num_threads(1)
    paths = images_of(arguments.root, arguments.images)
    require_decoder("simplejpeg")
    return {
        "benchmark": "data_speed",
        "arguments": {n: value for n, value in vars(arguments).items() if not isinstance(value, Path)},
        "environment": describe_start(
            step=0,
            world_size=1,
            device=torch.device("cpu"),
            components={"decoders": {name: version(name) for name in (*DECODERS, "timm")}},
        ),
        "images": len(paths),
        "mean_file_kilobytes": statistics.mean(path.stat().st_size for path in paths) / 1000,
        "networks": networks,
        "speeds": speeds(paths, arguments),
    }


def images_of(root: Path, count: int) -> list[Path]:
    """Return at most `count` images of root/train, evenly spread. Raises ValueError where there are none."""
    try:
        names = [name for name, _ in ImageFolder(root / "train").samples]
    except FileNotFoundError as error:
        raise ValueError(f"root: {root}: expected train/<class>/*.jpg: {error}") from error
    count = min(count, len(names))
    return [Path(names[number * len(names) // count]) for number in range(count)]


def ways(image_size_px: int) -> dict[tuple[str, str], Way]:
    """Return by decoder and transform what makes a sample's image of a file's bytes: ours, and timm's."""
    made = {name: make(image_size_px) for name, make in TRANSFORMS.items()}

    def ours(decoder: str, transform: Transform) -> Way:
        return lambda data: transform(decode_rgb(data, "", decoder))

    found = {(d, name): ours(d, transform) for d in DECODERS for name, transform in made.items()}
    return found | {(TIMM, name): timms(image_size_px, name) for name in ("standard", "evaluation")}


def timms(image_size_px: int, name: str) -> Way:
    """Return what timm's loader does, to 8 bits too, with the same crops."""
    options: Row = {"use_prefetcher": True, "interpolation": "bilinear", "color_jitter": None}
    transform = create_transform(image_size_px, is_training=name == "standard", crop_pct=0.875, **options)
    return lambda data: torch.as_tensor(transform(Image.open(io.BytesIO(data)).convert("RGB")))


def speeds(paths: Sequence[Path], arguments: argparse.Namespace) -> list[Row]:
    """Return a row for each decoder and transform: medians over the rounds."""
    made = ways(arguments.image_size)
    rounds: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in made}
    for number in range(arguments.rounds + 1):
        for key, times in rounds.items():
            times.append(one_round(paths, made[key], number, arguments.batch_size) / len(paths))
    rows = []
    for (decoder, transform), times in rounds.items():
        counted = np.stack(times[1:])
        rows.append(
            {
                "decoder": decoder,
                "transform": transform,
                "images_per_core_second": float(np.median(1 / counted.sum(axis=1))),
                "milliseconds": dict(zip(PARTS, (1000 * np.median(counted, axis=0)).tolist(), strict=True)),
            }
        )
    return rows


def one_round(paths: Sequence[Path], way: Way, epoch: int, batch_size: int) -> np.ndarray:
    """Return the seconds of the processor that each of PARTS takes for all images."""
    seconds = np.zeros(len(PARTS))
    samples: list[ImageSample] = []
    for number, path in enumerate(paths):
        moments = [time.process_time()]
        data = path.read_bytes()
        moments.append(time.process_time())
        with isolated_rng(mix_seed(0, epoch, number)):
            samples.append((way(data), 0))
        moments.append(time.process_time())
        if len(samples) == batch_size or number == len(paths) - 1:
            image_batch(samples)
            samples.clear()
        seconds += np.diff([*moments, time.process_time()])
    return seconds


def networks_of_configs(rates: Mapping[str, float]) -> list[Row]:
    """Return name, augmentation and rate of the networks of configs/, trained on photographs.

    Raises ValueError for a rate of another network.
    """
    files = sorted((PROJECT / "configs").glob("*.yaml"))
    configs = [load_config(file, [], IMAGENET) for file in files if "model.name" in read_file(file)]
    photographs = [config for config in configs if config.data.kind != "digits"]
    kinds = dict.fromkeys((config.model.name, config.data.augmentation) for config in photographs)
    unknown = sorted(rates.keys() - {name for name, _ in kinds})
    if unknown:
        known = ", ".join(sorted({name for name, _ in kinds}))
        raise ValueError(f"--images-per-second: {unknown[0]} is no network of configs/; expected {known}")
    return [
        {"name": name, "augmentation": augmentation, "images_per_gpu_second": rates.get(name)}
        for name, augmentation in kinds
    ]


def data_speed_page(record: Row) -> str:
    """Return the whole file."""
    arguments, environment = record["arguments"], record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["decoders"].items())
    lines = [
        "<!-- Generated by tools.data_speed from the record beside it. -->",
        "# Images a second of one core",
        "",
        f"{record['images']} images of {record['mean_file_kilobytes']:.0f} kB in the mean, to "
        f"{arguments['image_size']} px, in batches of {arguments['batch_size']}. Medians of "
        f"{arguments['rounds']} interleaved rounds on one core ({environment['hardware']['cpu']}), torch "
        f"{environment['packages']['torch']}, {versions}, commit {short_commit(environment['code'])}, "
        f"{environment['time_utc'][:10]}.",
        "",
        *table(
            ["decoder", "transform", "images/s", *(f"{part} (ms)" for part in PARTS)],
            [
                [row["decoder"], row["transform"], f"{row['images_per_core_second']:.0f}"]
                + [f"{row['milliseconds'][part]:.2f}" for part in PARTS]
                for row in record["speeds"]
            ],
        ),
        *cores_section(record),
    ]
    return "\n".join(lines) + "\n"


def cores_section(record: Row) -> list[str]:
    """Return the table of the cores that the GPUs need; nothing where no network has a rate."""
    gpus = record["arguments"]["gpus"]
    speed = {(row["decoder"], row["transform"]): row["images_per_core_second"] for row in record["speeds"]}
    known = [one for one in record["networks"] if one["images_per_gpu_second"]]
    if not known:
        return []
    rows = []
    for one in known:
        needed = gpus * one["images_per_gpu_second"]
        cores = [math.ceil(needed / speed[decoder, one["augmentation"]]) for decoder in DECODERS]
        rows.append([one["name"], one["augmentation"], f"{one['images_per_gpu_second']:g}", *map(str, cores)])
    head = ["network", "augmentation", "images/s of one GPU", *DECODERS]
    return ["", f"## Cores that keep {gpus} GPUs busy", "", *table(head, rows)]


if __name__ == "__main__":
    main()

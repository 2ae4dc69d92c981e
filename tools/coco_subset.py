"""Make a small split of a COCO data set: the first images that have objects, with their annotations.

    python -m tools.coco_subset --root data/coco --split train2017 --images 6 --name few
    python train_coco.py --config configs/few_mask_rcnn_pwlu.yaml data.root=data/coco

To see whether a detector can learn a handful of images by heart, train and evaluate it on them. The new split
is ROOT/annotations/instances_NAME.json and links in ROOT/NAME/ to the pictures; nothing else changes.
"""

import json
import os
from pathlib import Path
from typing import Any

from engine.coco.annotation_file import read_annotation_file
from engine.files import write_text_atomically
from tools.command_line import tool_parser


def first_with_objects(content: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the part of an annotation file about its first `count` images with an object that is no crowd.

    Raises:
        ValueError: there are not so many, or `count` is not positive.
    """
    with_objects = {entry["image_id"] for entry in content["annotations"] if not entry.get("iscrowd")}
    images = [image for image in content["images"] if image["id"] in with_objects][: max(0, count)]
    if len(images) != count or not images:
        raise ValueError(f"--images is {count}; expected 1 to {len(with_objects)}, the images with objects")
    chosen = {image["id"] for image in images}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in chosen]
    return {**content, "images": images, "annotations": annotations}


def write_subset(root: Path, split: str, name: str, count: int) -> Path:
    """Write the split `name` below `root` and return its annotation file.

    The annotation file comes last: until it is there the same call does all again.

    Raises:
        ValueError: there is a split of that name, or not enough images.
        DataError: the annotation file of `split` cannot be used.
    """
    annotations = root / "annotations"
    path, folder = annotations / f"instances_{name}.json", root / name
    if path.exists() or (folder.exists() and not _holds_links_only(folder)):
        raise ValueError(f"--name is {name!r}, but {path} or {folder} exists; take another name")
    part = first_with_objects(read_annotation_file(annotations / f"instances_{split}.json"), count)
    for image in part["images"]:
        link = folder / image["file_name"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(os.path.relpath(root / split / image["file_name"], link.parent), link)
    write_text_atomically(path, json.dumps(part))
    return path


def _holds_links_only(folder: Path) -> bool:
    """Whether a folder is what a start that was ended too early has left."""
    return all(entry.is_symlink() or entry.is_dir() for entry in folder.rglob("*"))


def main() -> None:
    """Write the subset that the command line names."""
    parser = tool_parser("coco_subset", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with annotations/ and the splits")
    parser.add_argument("--split", default="train2017", help="where the images come from (train2017)")
    parser.add_argument("--images", type=int, default=6, help="how many (6)")
    parser.add_argument("--name", required=True, help="of the new split")
    arguments = parser.parse_args()
    try:
        path = write_subset(arguments.root, arguments.split, arguments.name, arguments.images)
    except ValueError as error:
        parser.error(str(error))
    print(f"{path}: {arguments.images} images of {arguments.split}")


if __name__ == "__main__":
    main()

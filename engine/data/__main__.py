"""Write the indices of a folder of WebDataset shards: ROOT/index-train.npz and ROOT/index-val.npz.

Without them every training process reads the headers of all shards when it starts.
"""

import argparse

from engine.data.shard_index import write_index
from engine.data.source import DataError
from engine.processes.program import errors_told_by, to_path
from engine.records.console import say


def main() -> None:
    """Parse the command line and index the splits that are there."""
    parser = argparse.ArgumentParser(prog="python -m engine.data", description=__doc__)
    parser.add_argument("root", type=to_path, help="folder with train-*.tar and val-*.tar")
    root = parser.parse_args().root
    with errors_told_by(parser):
        found = [split for split in ("train", "val") if any(root.glob(f"{split}-*.tar"))]
        for split in found or ["train"]:  # whose error names the layout
            try:
                say(str(write_index(root, split)))
            except OSError as error:
                remedy = "link the shards into a folder of your own"
                raise DataError(f"cannot write {error.filename}: {error.strerror}; {remedy}") from error


if __name__ == "__main__":
    main()

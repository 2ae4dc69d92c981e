"""The tables of configuration keys."""

from engine.config.load import COCO, IMAGENET
from tools.tables.keys import keys_table


def row(lines: list[str], key: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_key_has_its_default_its_bounds_and_its_comment() -> None:
    lines = keys_table(IMAGENET)
    assert row(lines, "activation.num_intervals") == ["`16`", "a number greater than 0", "the paper's N"]
    # without a default
    assert row(lines, "optimizer.peak_lr")[0] == ""
    assert row(lines, "runtime.compile")[:2] == ["`false`", "`true`, `false`"]
    assert row(lines, "data.broken_images")[1] == "`error`, `skip`"


def test_the_comment_of_a_key_with_another_default_is_inherited() -> None:
    assert row(keys_table(IMAGENET), "global_batch_size")[0] == "`1024`"
    assert row(keys_table(COCO), "global_batch_size")[0] == "`16`"
    assert row(keys_table(IMAGENET), "global_batch_size")[2] == row(keys_table(COCO), "global_batch_size")[2]
    assert "images per optimizer step" in row(keys_table(COCO), "global_batch_size")[2]

from pathlib import Path

import pytest

from tools.paper.numbers import PAPER, Place, Quantity, read_paper


def test_numbers_of_every_kind() -> None:
    paper = read_paper()
    assert sum(map(len, paper.values())) == 102
    assert paper[2][Place("FLOPs", "MobileNet-V3", "flops")] == Quantity(56, "M")
    assert paper[2][Place("#Params", "ResNet-18", "parameters")] == Quantity(11.69, "M")
    assert paper[4][Place("ResNet-18", "PWLU", "inference_time")] == Quantity(19.9, "ms")
    assert paper[4][Place("MobileNet-V3", "PAU", "inference_time")] == Quantity(38.6, "ms")
    assert paper[6][Place("PWLU-fix-init-10", "channel-wise", "top1")] == Quantity(68.20, "%")
    assert paper[7][Place("N = 20", "EfficientNet-B0", "top1")] == Quantity(77.86, "%")


def test_a_broken_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    with pytest.raises(ValueError, match="is missing; it holds the paper's numbers"):
        read_paper(path)
    path.write_text(PAPER.read_text().replace("17.1", "high"))
    with pytest.raises(ValueError, match="paper.csv, line 59: could not convert string to float: 'high'"):
        read_paper(path)
    path.write_text("table,row\n2,ReLU\n")
    with pytest.raises(ValueError, match="expected the columns table, row, column"):
        read_paper(path)

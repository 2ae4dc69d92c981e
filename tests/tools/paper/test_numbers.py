from pathlib import Path

import pytest

from tools.paper.numbers import PAPER, Place, Quantity, read_paper

CONFIGS = Path(__file__).parents[3] / "configs"
NAMES = {"relu": "ReLU", "swish": "Swish", "prelu": "PReLU", "apl": "APL", "pau": "PAU", "frelu": "F-ReLU"}
NAMES |= {"pwlu": "PWLU"}
NETWORKS = {"r18": "ResNet-18", "r50": "ResNet-50", "mbv2": "MobileNet-V2", "mbv3": "MobileNet-V3"}
NETWORKS |= {"effb0": "EfficientNet-B0"}
DETECTORS = {"mask_rcnn": "Mask R-CNN", "retinanet": "RetinaNet"}


def test_the_heads_of_configurations_have_the_papers_numbers() -> None:
    paper = read_paper()
    assert sum(map(len, paper.values())) == 102
    for activation, name in NAMES.items():
        for file, network in NETWORKS.items():
            top1 = paper[2][Place(name, network, "top1")].value
            head = (CONFIGS / f"{file}_{activation}.yaml").read_text().splitlines()[0]
            assert head == f"# Table 2, {network} with {name}: {top1:.2f} % top-1 in the paper."
        for file, network in DETECTORS.items() if activation in ("relu", "swish", "frelu", "pwlu") else ():
            box = f"{paper[3][Place(name, network, 'bbox_AP')].value:.2f} box AP"
            mask = paper[3].get(Place(name, network, "segm_AP"))
            numbers = f"{box}, {mask.value:.2f} mask AP" if mask else box
            head = (CONFIGS / f"{file}_r50_{activation}.yaml").read_text().splitlines()[0]
            assert head == f"# Table 3, {network} with {name}: {numbers} in the paper."


def test_what_stands_twice_in_the_paper_is_the_same() -> None:
    paper = read_paper()
    for table, network in ((5, "ResNet-18"), (6, "MobileNet-V3")):
        realigned = paper[table][Place("PWLU-stat-realign", "channel-wise", "top1")]
        assert (
            realigned
            == paper[2][Place("PWLU", network, "top1")]
            == paper[7][Place("N = 16", network, "top1")]
        )
        assert (
            paper[table][Place(f"{network} baseline", "both", "top1")]
            == paper[2][Place("ReLU", network, "top1")]
        )


def test_numbers_of_every_kind() -> None:
    paper = read_paper()
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

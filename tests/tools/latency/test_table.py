from tests.tools.latency_records import latency_record
from tools.latency.table import PAPER_NOTE, latency_table, paper_time, table_4
from tools.paper.numbers import PAPER


def test_table_by_hand() -> None:
    record = latency_record(("inference", "training_step"))
    record["environment"]["runtimes"] = {"onnx": "1.2", "openvino": "3.4"}
    text = latency_table(record, table_4(PAPER))
    assert "# Latency on a CPU, 2 threads (a processor), batch size 64\n" in text
    assert "Input 64 x 3 x 224 x 224, float32, contiguous, eval mode." in text
    times = "24.00 (21.60 to 28.80) | 1.20 | 12.00 (10.80 to 14.40) | 1.20"
    head = "| activation | eager (ms) | / ReLU | compile (ms) | / ReLU |"
    assert f"{head} paper, V100 (ms) | / ReLU |\n" in text and f"| pwlu | {times} | 19.9 | 1.16 |\n" in text
    assert f"{head}\n" in text and f"| pwlu | {times} |\n" in text  # the paper has no training step
    assert text.count("Largest distance of an output from the trained network's: 2.0e-05.") == 2
    assert PAPER_NOTE in text
    origin = "Commit 0123456789, 2026-01-02, torch 2.14.1, onnx 1.2, openvino 3.4."
    assert f"{origin} `python -m tools.latency --output x.json`" in text


def test_what_was_not_measured_is_empty() -> None:
    record = latency_record()
    record["inference"] = [
        row for row in record["inference"] if (row["activation"], row["runtime"]) != ("pwlu", "eager")
    ]
    text = latency_table(record, table_4(PAPER))
    assert "| pwlu |  |  | 12.00 (10.80 to 14.40) | 1.20 | 19.9 | 1.16 |\n" in text


def test_paper_names_of_the_models() -> None:
    paper = table_4(PAPER)
    assert paper_time(paper, "mobilenetv3_small_100", "relu") == 15.4
    assert paper_time(paper, "mobilenetv3_large_100", "relu") is None
    assert paper_time(paper, "test_resnet", "pwlu") is None

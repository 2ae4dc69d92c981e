import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.config import load as configuration
from engine.config.experiment import leaves
from engine.config.load import COCO, IMAGENET, ConfigError, ImageNetConfig, experiment_of
from engine.training.checkpoint import CheckpointError, require_same
from tests.training_runs import COCO_SETTINGS

SMALLEST = """
epochs: 10
phase1_epochs: 2
model: {name: resnet18}
optimizer: {peak_lr: 1e-1, weight_decay: 1e-4}
schedule: {warmup_epochs: 3}
"""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> ImageNetConfig:
    return configuration.load_config(path, overrides, IMAGENET)


@pytest.fixture
def smallest(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALLEST)
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_values_get_the_types_of_their_keys(smallest: Path) -> None:
    config = load_config(smallest, ["optimizer.clip_grad_norm=1", "runtime.amp=off", "runtime.compile=true"])
    assert isinstance(config, ImageNetConfig)
    assert config.optimizer.weight_decay == 1e-4 and isinstance(config.optimizer.weight_decay, float)
    assert config.optimizer.clip_grad_norm == 1.0 and isinstance(config.optimizer.clip_grad_norm, float)
    assert config.epochs == 10 and isinstance(config.epochs, int)
    assert config.runtime.amp == "off"
    assert config.runtime.compile is True


def test_the_word_off_in_a_file_is_no_boolean(smallest: Path) -> None:
    smallest.write_text(SMALLEST + "runtime: {amp: off}\noutput: 2024\n")
    config = load_config(smallest)
    assert (config.runtime.amp, config.output) == ("off", "2024")


def test_overrides_win_over_the_file_and_later_ones_over_earlier(smallest: Path) -> None:
    assert load_config(smallest).output == "runs/small"  # named after the file unless given
    config = load_config(str(smallest), ["epochs=20", "output=elsewhere/a=b", "epochs=30"])
    assert (config.epochs, config.output) == (30, "elsewhere/a=b")


def test_references_take_the_final_value(smallest: Path) -> None:
    smallest.write_text(SMALLEST.replace("1e-4", "'${optimizer.peak_lr}'"))
    assert load_config(smallest, ["optimizer.peak_lr=0.5"]).optimizer.weight_decay == 0.5
    message = error_of(smallest, "optimizer.weight_decay=${optimizer.peek}")
    assert "optimizer.weight_decay" in message and "optimizer.peek" in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.peek_lr=1", ["unknown key 'optimizer.peek_lr'", "did you mean 'optimizer.peak_lr'?"]),
        ("optimizer.epochs=1", ["unknown key 'optimizer.epochs'", "did you mean 'epochs'?"]),
        ("batch=1", ["unknown key 'batch'"]),
        ("init-from=x.pt", ["'init-from' is no key but an argument: --init-from CHECKPOINT"]),
        ("model.name.deep=1", ["unknown key 'model.name.deep'"]),
        ("model=resnet18", ["'model' is a section", "model.name"]),
        ("epochs=1.5", ["epochs: expected a whole number, got '1.5'"]),
        ("epochs=[1, 2]", ["epochs: expected a whole number, got '[1, 2]'"]),
        ("epochs=ten", ["epochs: expected a whole number, got 'ten'"]),
        ("epochs=true", ["epochs: expected a whole number, got 'true'"]),
        ("optimizer.peak_lr=fast", ["optimizer.peak_lr: expected a number, got 'fast'"]),
        ("optimizer.peak_lr=", ["optimizer.peak_lr: expected a number, got ''"]),
        ("optimizer.peak_lr=0", ["optimizer.peak_lr: expected a number greater than 0, got 0.0"]),
        ("optimizer.weight_decay=nan", ["optimizer.weight_decay", "0 or greater, got nan"]),
        ("optimizer.weight_decay=inf", ["optimizer.weight_decay", "0 or greater, got inf"]),
        ("optimizer.label_smoothing=1", ["optimizer.label_smoothing", "[0, 1), got 1.0"]),
        ("data.eval_crop_ratio=0", ["data.eval_crop_ratio", "(0, 1], got 0.0"]),
        ("runtime.compile=maybe", ["runtime.compile: expected true or false, got 'maybe'"]),
        ("runtime.amp=fp32", ["runtime.amp is 'fp32', expected one of off, bf16, fp16"]),
        (
            "data.kind=digit",
            ["data.kind is 'digit', expected one of imagefolder, ", "did you mean 'digits'?"],
        ),
        ("activation.name=pwl", ["activation.name is 'pwl', expected one of relu, ", "did you mean 'pwlu'?"]),
        ("activation.mode=both", ["activation.mode is 'both', expected one of channel, layer"]),
        ("activation.num_intervals=0", ["activation.num_intervals", "greater than 0, got 0"]),
        ("activation.bound=-3", ["activation.bound", "greater than 0, got -3.0"]),
        ("global_batch_size=0", ["global_batch_size", "greater than 0, got 0"]),
        ("seed=-1", ["seed: expected a number in [0, 2^63), got -1"]),
        ("data.root=", ["data.root: expected a path, got ''"]),
        ("data.root=null", ["data.root: expected a path, got 'null'", "./null"]),
        ("output=null", ["output: expected a path, got 'null'", "./null"]),
        ("output=~", ["output: expected a path, got '~'"]),
        ("output=s3://bucket/x", ["output: expected one path of this machine, got 's3://bucket/x'"]),
        ("output=$UNSET/x", ["output: ", "'$UNSET/x'", "environment has no UNSET"]),
        ("output=${HOME}/x", ["output: cannot use the reference ${HOME}", "write $HOME"]),
        ("seed=null", ["seed: expected a whole number, got 'null'"]),
        ("seed=.inf", ["seed: expected a whole number, got '.inf'"]),
        ("epochs=1e1", ["epochs: expected a whole number, got '1e1'"]),
        ("epochs=0x10", ["epochs: expected a whole number, got '0x10'"]),
        ("optimizer.weight_decay=1,5", ["optimizer.weight_decay: expected a number, got '1,5'"]),
        ("optimizer.weight_decay=.nan", ["optimizer.weight_decay: expected a number, got '.nan'"]),
        ("epochs", ["expected key=value, got 'epochs'"]),
        ("=3", ["expected key=value, got '=3'"]),
        ("base=other.yaml", ["base=other.yaml", "--config other.yaml"]),
        ("output=", ["output: expected a path, got ''"]),
        ("phase1_epochs=11", ["phase1_epochs=11 exceeds epochs=10"]),
        ("epochs=1", ["phase1_epochs=2 exceeds epochs=1"]),
        ("schedule.warmup_epochs=10", ["schedule.warmup_epochs=10", "epochs=10"]),
    ],
)
def test_a_wrong_override_is_named_with_what_was_expected(
    smallest: Path, override: str, parts: list[str]
) -> None:
    message = error_of(smallest, override)
    assert message.startswith("command line: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["activation.name=prelu", "activation.init=silu"], "activation.init=silu is how a PWLU starts"),
        (["activation.init_slope=0.1"], "init_slope=0.1 belongs to activation.init=leaky_relu, got relu"),
        (["activation.init=silu", "activation.init_slope=0.1"], "belongs to activation.init=leaky_relu"),
        (["activation.init=leaky", "activation.init_slope=0.1"], "did you mean 'leaky_relu'?"),
        (["activation.init=leaky_relu", "activation.init_slope=nan"], "expected a finite number, got nan"),
        (["optimizer.train_only=activation"], "but phase1_epochs is 2; give phase1_epochs=0"),
        (["optimizer.train_only=activations"], "expected one of all, activation"),
    ],
)
def test_a_start_or_a_phase_that_would_mislead_is_refused(
    smallest: Path, words: list[str], part: str
) -> None:
    assert part in error_of(smallest, *words)


def test_starts_and_what_learns_may_be_chosen(smallest: Path) -> None:
    start = load_config(smallest, ["activation.init=leaky_relu", "activation.init_slope=-0.1"]).activation
    assert (start.init, start.init_slope) == ("leaky_relu", -0.1)
    prelu = load_config(
        smallest, ["activation.name=prelu", "optimizer.train_only=activation"]
    )  # has no phase I
    assert prelu.optimizer.train_only == "activation"


def test_nesterov_needs_momentum(smallest: Path) -> None:
    for word in ("true", "yes", "On", "1"):
        assert load_config(smallest, [f"optimizer.nesterov={word}"]).optimizer.nesterov
    assert not load_config(smallest, ["optimizer.nesterov=off"]).optimizer.nesterov
    assert "momentum" in error_of(smallest, "optimizer.nesterov=true", "optimizer.momentum=0")


@pytest.mark.parametrize("text", ["[1,,2]", "[,]", "[1 2]", "1, 2", "[1, 2.5]", "null"])
def test_a_list_with_a_gap_is_no_list(tmp_path: Path, text: str) -> None:
    path = tmp_path / "detector.yaml"
    path.write_text(COCO_SETTINGS)
    key = "schedule.milestones_steps"
    with pytest.raises(ConfigError, match=f"{key}: expected whole numbers, such as "):
        configuration.load_config(path, [f"{key}={text}"], COCO)
    for good in ("[1, 2]", "[1,2,]", " [ 1 , 2 ]".strip()):
        assert configuration.load_config(path, [f"{key}={good}"], COCO).schedule.milestones_steps == [1, 2]


def test_a_key_with_a_new_name_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "detector.yaml"
    path.write_text("model: {engine: detectron2}\n")
    with pytest.raises(
        ConfigError, match=r"detector\.yaml: .*'model\.engine' is called 'model\.library' now"
    ):
        configuration.load_config(path, [], COCO)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("- epochs\n", ["expected `key: value` lines, got a sequence"]),
        ("epochs: 1\nepochs: 2\n", ["line 2: the key 'epochs' appears twice"]),
        ("optimizer.peak_lr: 1\n", ["line 1: the key 'optimizer.peak_lr'", "nested lines"]),
        ("epochs: {\n", ["not valid YAML"]),
        ("base: {a: b}\n", ["line 1: the key 'base': expected a value or a list of values"]),
        ("base: ~/missing.yaml\n", [f"{Path.home()}/missing.yaml: cannot read it (base of "]),
        ("base: null\n", ["base: expected a path, got 'null'"]),
        ("output: null\n", ["output: expected a path, got 'null'"]),
        ("output: ~\n", ["output: expected a path, got '~'"]),
        ("output:\n", ["output: expected a path, got ''"]),
        ("output: no\n", ["output: expected a path, got 'no'"]),
        ("output: [a, b]\n", ["output: expected one path of this machine, got '[a, b]'"]),
        ("output: ' x'\n", ["output: expected a path without blanks at its ends, got ' x'"]),
        ("output: |\n  x\n", ["output: expected a path without blanks at its ends"]),
        ("output: {a: b}\n", ["unknown key 'output.a'"]),
        ("data: {root: null}\n", ["data.root: expected a path, got 'null'"]),
        ("optimizer:\n", ["'optimizer' is a section, not a value"]),
        ("epochs: 1\n---\nepochs: 2\n", ["not valid YAML"]),
        ("optimizer:\n\tpeak_lr: 1\n", ["not valid YAML"]),
        ("optimizer: {seed: 1}\noptimizer: {peak_lr: 1}\n", ["line 2: the key 'optimizer' appears twice"]),
        ("base: missing.yaml\n", ["missing.yaml: cannot read it (base of ", "No such file"]),
        ("", ["wrong.yaml: no value for epochs, model.name, optimizer.peak_lr, "]),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text if "base" in text or not text.startswith(("output", "data")) else SMALLEST + text)
    message = error_of(path)
    assert str(tmp_path) in message
    for part in parts:
        assert part in message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x02\xff")
    assert error_of(path).startswith(f"{path}: not a text file")


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-32"):
        (tmp_path / "a.yaml").write_text(SMALLEST, encoding=encoding)
        assert error_of(tmp_path / "a.yaml").startswith(f"{tmp_path / 'a.yaml'}: not a text file")


def test_what_editors_of_windows_add_is_no_matter(smallest: Path) -> None:
    plain = load_config(smallest)
    smallest.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert load_config(smallest) == plain


def test_paths_are_written_out(smallest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    smallest.write_text(SMALLEST + "output: ~/runs/x\ndata: {root: $SCRATCH/imagenet}\n")
    config = load_config(smallest)
    assert config.output == f"{Path.home()}/runs/x" and config.data.root == "/scratch/me/imagenet"
    config = load_config(smallest, ["output=${data.root}/run", "data.root=~/data"])
    assert config.output == f"{Path.home()}/data/run"


def test_numbers_are_read_as_people_write_them(smallest: Path) -> None:
    numbers = {"1e-3": 1e-3, ".5": 0.5, "5.": 5.0, "1_0.5": 10.5, "010": 10.0, "+1": 1.0}
    for text, value in numbers.items():
        assert load_config(smallest, [f"optimizer.peak_lr={text}"]).optimizer.peak_lr == value
    for text, whole in {"010": 10, "1_000": 1000, "007": 7}.items():  # as YAML 1.2; PyYAML alone: 8, 1000, 7
        assert load_config(smallest, [f"seed={text}"]).seed == whole


def test_a_missing_file_is_named_with_the_nearest_in_its_folder(smallest: Path) -> None:
    message = error_of(smallest.parent / "smal.yaml")
    assert "smal.yaml: cannot read it: No such file" in message and "did you mean 'small.yaml'?" in message
    (smallest.parent / "smal.yaml").mkdir()
    assert error_of(smallest.parent / "smal.yaml").endswith("cannot read it: Is a directory")


def test_bases_are_relative_to_their_file_and_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "root.yaml").write_text(SMALLEST)
    (tmp_path / "base" / "a.yaml").write_text(
        "base: root.yaml\nseed: 1\nepochs: 11\noptimizer: {momentum: 0.5}\n"
    )
    (tmp_path / "base" / "b.yaml").write_text("base: root.yaml\nseed: 2\nepochs: 11\n")
    child = tmp_path / "child.yaml"
    child.write_text("base: [base/a.yaml, base/b.yaml]\noptimizer:\n  momentum: 0.6\n")
    config = load_config(child)
    optimizer = config.optimizer
    assert (config.seed, config.epochs, optimizer.momentum, optimizer.peak_lr) == (2, 11, 0.6, 0.1)


def test_a_circle_of_bases_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    message = error_of(tmp_path / "a.yaml")
    assert "circle" in message and "a.yaml -> " in message and "b.yaml" in message


def test_an_error_names_the_file_that_says_it(tmp_path: Path, smallest: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("base: small.yaml\n")
    smallest.write_text(SMALLEST.replace("1e-1", "-1"))
    assert error_of(child).startswith(f"{smallest}: optimizer.peak_lr: ")
    smallest.write_text(SMALLEST + "data: {rot: x}\n")
    assert error_of(child).startswith(f"{smallest}: unknown key 'data.rot'; did you mean 'data.root'?")


def test_the_settings_are_plain_values_and_load_again(smallest: Path) -> None:
    config = load_config(smallest, ["seed=7", "runtime.amp=bf16"])
    plain = json.loads(json.dumps(experiment_of(config).settings))
    words = [f"{key}={value}" for key, value in leaves(plain).items()]
    assert load_config(smallest, words) == config


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("output=elsewhere", True),
        ("data.root=elsewhere", True),
        ("data.workers=0", True),
        ("runtime.device=cpu", True),
        ("runtime.device_batch_size=8", True),
        ("runtime.log_every_steps=1", True),
        ("data.shrink_px=0", True),
        ("data.shrink_px=64", False),
        ("data.decoder=simplejpeg", True),
        ("data.decoder=pillow", False),
        ("runtime.amp=bf16", False),
        ("seed=1", False),
        ("epochs=11", False),
        ("data.augmentation=none", False),
        ("optimizer.weight_decay=1e-5", False),
        ("activation.name=relu", False),
        ("activation.init=relu", True),
        ("activation.init=silu", False),
        ("model.pretrained=false", True),
        ("model.pretrained=true", False),
        ("optimizer.train_only=all", True),
    ],
)
def test_the_hash_is_over_the_experiment(smallest: Path, override: str, same: bool) -> None:
    one, other = (experiment_of(load_config(smallest, words)) for words in ([], [override]))
    assert (one.hash == other.hash) is same
    network = {key for key in one.values if key.startswith(("model.", "activation."))}
    assert one.network.keys() == network - {"model.pretrained"}  # where weights come from is no network


def test_experiments_of_before_newer_keys_are_the_same_as_their_defaults(smallest: Path) -> None:
    now = experiment_of(load_config(smallest, ["data.decoder=pillow"]))
    newer = (
        "activation.init",
        "activation.init_slope",
        "data.decoder",
        "model.pretrained",
        "optimizer.train_only",
    )
    saved = {key: value for key, value in now.values.items() if key not in newer}
    assert saved.keys() != now.values.keys()
    written = json.dumps(saved, sort_keys=True).encode()
    assert now.hash == hashlib.sha256(written).hexdigest()[:16]
    require_same(saved, now.values, Path("run"))
    words = ["data.decoder=pillow", "activation.init=leaky_relu", "activation.init_slope=0.1"]
    other = experiment_of(load_config(smallest, words))
    with pytest.raises(
        CheckpointError, match=r"init was 'relu', is now 'leaky_relu'; .*slope was 0.25, is now 0.1\."
    ):
        require_same(saved, other.values, Path("run"))


def test_a_reference_may_not_lead_back_to_itself(smallest: Path) -> None:
    message = error_of(smallest, "epochs=${seed}", "seed=${epochs}")
    assert "seed: cannot use the reference ${seed}: in a circle" in message or "epochs: cannot" in message

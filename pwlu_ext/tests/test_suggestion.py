"""The sentence for a word that is not one of the known ones."""

import pytest

from pwlu.suggestion import did_you_mean, expected_one_of


@pytest.mark.parametrize(
    ("value", "hint"), [("pwul", "; did you mean 'pwlu'?"), ("tanh", ""), (3, ""), (None, "")]
)
def test_the_sentence_names_value_choices_and_the_nearest(value: object, hint: str) -> None:
    sentence = expected_one_of("activation.name", value, iter(["relu", "pwlu"]))
    assert sentence == f"activation.name is {value!r}, expected one of relu, pwlu{hint}"


def test_of_dotted_names_one_that_ends_alike_is_nearest() -> None:
    assert did_you_mean("peak_lr", ["epochs", "optimizer.peak_lr"]) == "; did you mean 'optimizer.peak_lr'?"

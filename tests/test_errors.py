"""Tests of the names that an error suggests."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import UnknownNameError
from harness.records import Protocol, Recipe

SETTINGS = [f"recipe.{name}" for name in Recipe.__struct_fields__]
SETTINGS += [f"protocol.{name}" for name in Protocol.__struct_fields__]
NAMES = ["accuracy", "bert-tiny", "f1_macro", "fashion-mnist", "log_loss", "nlp", "resnet-20", "run", "torch", "vision"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("nlpp", "nlp"),
        ("rnu", "run"),
        ("torhc", "torch"),
        ("pytorch", "torch"),
        ("acc", "accuracy"),
        ("resnet20", "resnet-20"),
        ("F1-Macro", "f1_macro"),
        ("mnist", "fashion-mnist"),
        ("recipe.learning-rate", "recipe.learning_rate"),
        ("recipe.batchsize", "recipe.batch_size"),
        ("recipe.optimiser", "recipe.optimizer"),
        ("recipe.epoch", "recipe.epochs"),
        ("recipe.warmup", "recipe.warmup_fraction"),
    ],
)
def test_unknown_name_suggests_a_close_name(name: str, suggested: str) -> None:
    assert f"did you mean {suggested!r}?" in str(UnknownNameError("name", name, [*NAMES, *SETTINGS]))


@pytest.mark.parametrize(
    "name",
    [
        "recipe.vocabulary",
        "recipe.lr",
        "recipe.seed",
        "recipe.heads",
        "recipe.warmup_steps",
        "protocol.epochs",
        "protocol.seconds",
        "speech",
        "jax",
        "tf",
        "x",
        "",
        "recipe.",
    ],
)
def test_unknown_name_lists_the_known_names_if_none_is_close(name: str) -> None:
    message = str(UnknownNameError("name", name, [*NAMES, *SETTINGS]))
    assert "did you mean" not in message
    assert "known: accuracy, bert-tiny" in message


@given(st.sampled_from(NAMES), st.integers(0, 20), st.sampled_from(string.ascii_lowercase))
def test_one_wrong_letter_in_a_long_name_is_suggested(name: str, place: int, letter: str) -> None:
    wrong = name[: place % len(name)] + letter + name[place % len(name) + 1 :]
    assume(len(name) > 3 and wrong not in NAMES)
    assert f"did you mean {name!r}?" in str(UnknownNameError("name", wrong, NAMES))

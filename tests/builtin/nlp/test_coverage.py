"""Tests of the facts and warnings about the tokens of each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness_nlp import coverage, text
from harness_nlp.options import NlpOptions
from harness_nlp.task import TextClassification
from hypothesis import given
from hypothesis import strategies as st

from harness import DataInfo, RawData, Split

UNKNOWN = 1
ROWS = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=30)
LATIN = ["the cat sat on the mat", "a dog ran to the park", "cats and dogs", "the park is far"] * 3


def info(train: list[str], other: list[str] | None = None, **options: object) -> DataInfo:
    """Return the description of texts after preparation; `other` is used for the validation and the test split."""

    def split(texts: list[str]) -> Split:
        return Split(inputs={"text": np.array(texts, object)}, targets=np.arange(len(texts)) % 2)

    rest = split(train if other is None else other)
    raw = RawData(train=split(train), validation=rest, test=rest, label_names=("even", "odd"))
    return TextClassification().prepare(raw, NlpOptions(**options)).info  # type: ignore[arg-type]


@given(ROWS, ROWS, st.integers(3, 12))
def test_facts_agree_with_counts_of_tokens(first: list[list[int]], second: list[list[int]], length: int) -> None:
    facts = coverage.details({"training": first, "test": second}, UNKNOWN, length)
    for name, rows in (("training", first), ("test", second)):
        tokens = [token for row in rows for token in row]
        assert facts[f"unknown_share_{name}"] == pytest.approx(np.mean(np.equal(tokens, 1)) if tokens else 0)
        assert facts[f"unreadable_{name}"] == sum(set(row) <= {UNKNOWN} for row in rows)
    assert facts["truncated_share"] == pytest.approx(np.mean([len(row) > length - 2 for row in first]))


@given(ROWS, st.integers(3, 12))
def test_warnings_are_given_above_the_limits_only(rows: list[list[int]], length: int) -> None:
    sentences = coverage.warnings({"test": rows}, UNKNOWN, length, NlpOptions())
    facts = coverage.details({"test": rows}, UNKNOWN, length)
    assert any("are [UNK]" in each for each in sentences) == (facts["unknown_share_test"] > coverage.UNKNOWN_LIMIT)
    assert any("consist only of" in each for each in sentences) == (facts["unreadable_test"] > 0)
    assert any("truncated" in each for each in sentences) == (facts["truncated_share_test"] > coverage.TRUNCATED_LIMIT)


def test_usual_texts_have_no_warnings() -> None:
    assert info(LATIN).warnings == ()


@pytest.mark.parametrize(
    "other",
    [
        ["ωψξ δφγ"],
        ["日本語のテキスト"],
        ["😀😀 😀"],
        ["Łódź ŵŷ"],
        ["12345 67890"],
        ["привет мир"],
        ["שלום עולם"],
        ["مرحبا"],
        ["नमस्ते"],
    ],
)
def test_texts_in_an_unseen_script_are_counted_in_both_other_splits(other: list[str]) -> None:
    described = info(LATIN, [*other, "the cat"])
    assert described.details["unreadable_training"] == 0
    assert described.details["unreadable_test"] == described.details["unreadable_validation"] == 1
    for name in ("validation", "test"):
        assert any(each.startswith("1 of 2 " + name) and "task.vocab_size" in each for each in described.warnings)


@pytest.mark.parametrize("empty", ["", " ", "\u200d", "\t\n", "\u00ad", "\ufeff", "\x00", "\u2060"])
def test_texts_that_become_empty_are_counted(empty: str) -> None:
    assert info(LATIN, [empty, "the cat"]).details["unreadable_test"] == 1


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"vocabulary": "word"}, "task.vocabulary=wordpiece"),
        ({"vocab_size": 16}, "raise task.vocab_size"),
        ({"tokenizer": True}, "use a checkpoint whose tokenizer"),
    ],
)
def test_advice_depends_on_the_kind_of_vocabulary(tmp_path: Path, options: dict[str, object], advice: str) -> None:
    if "tokenizer" in options:
        (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
        options = {"tokenizer": str(tmp_path)}
    assert any(
        "training tokens" in each and advice in each
        for each in info([*LATIN, "words that occur only once in all of these texts"], **options).warnings
    )


@pytest.mark.parametrize(("long", "warned"), [(1, False), (2, False), (3, True), (10, True)])
def test_truncation_is_a_warning_above_a_fifth_of_the_texts(long: int, warned: bool) -> None:
    described = info(["cat " * 9] * long + ["cat"] * (10 - long), max_length=8)
    assert described.details["truncated_share"] == long / 10
    sentence = f"{long} of 10 training texts ({long / 10:.1%}) were truncated to 8 tokens (the longest has 11)"
    assert any(each.startswith(sentence) and "task.max_length" in each for each in described.warnings) == warned


@pytest.mark.parametrize(
    ("lines", "unused"),
    [
        (["a", "b", "c"], []),
        (["a", "b", "a"], [4]),
        (["a", "a", "a"], [4, 5]),
        (["[UNK]", "a"], [1]),
        (["a", "", "b"], [5]),
        (["a", "b", "c", "d", "e", "f", "f", "e", "d", "c", "b", "a"], [4, 5, 6, 7, 8, 9]),
    ],
)
def test_repeated_and_empty_lines_of_a_vocabulary_are_reported(
    tmp_path: Path, lines: list[str], unused: list[int]
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join((*text.SPECIAL_TOKENS, *lines)) + "\n")
    found = coverage.unused_ids(text.pretrained_tokenizer(str(tmp_path))[1])
    assert len(found) == bool(unused)
    assert set(found) <= set(info(LATIN, tokenizer=str(tmp_path)).warnings)
    if unused:
        named = ", ".join(map(str, unused[:5])) + (", ..." if len(unused) > 5 else "")
        assert found[0].startswith(f"{len(unused)} id")
        assert f"no token: {named}; if the tokenizer was read from vocab.txt, line {unused[0] + 1} is" in found[0]

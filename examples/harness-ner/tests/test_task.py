"""Tests of data preparation: tokens, targets, options and errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_ner.tagged import label_names, split
from harness_ner.task import NamedEntities, NerOptions

from harness import IGNORED, DataError, PreparedData, RawData, Recipe, UsageError

NAMES = label_names("a")
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "rio", "de", "jan", "##ei", "##ro", "is", "-", "far")


def raw(*sentences: str, names: tuple[str, ...] = NAMES) -> RawData:
    """Return data with the same sentences in all splits, parsed from strings such as ``Rio/B-a is/O``."""
    tagged = [[tuple(word.rsplit("/", 1)) for word in sentence.split(" ")] for sentence in sentences]
    part = split(tagged, names)  # type: ignore[arg-type]
    return RawData(train=part, validation=part, test=part, label_names=names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return tmp_path


def prepared(data: RawData, **options: Any) -> PreparedData:
    return NamedEntities().prepare(data, NerOptions(**options))


def test_first_piece_of_a_word_has_its_tag(folder: Path) -> None:
    data = prepared(raw("Rio/B-a de/I-a Janeiro/I-a is/O", "far-far/O"), tokenizer=str(folder))
    assert data.info.inputs["input_ids"].shape == (8,)
    pieces = [[PIECES[number] for number in row] for row in data.train.inputs["input_ids"]]
    assert pieces[0] == ["[CLS]", "rio", "de", "jan", "##ei", "##ro", "is", "[SEP]"]
    assert pieces[1] == ["[CLS]", "far", "-", "far", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    none = IGNORED
    assert data.train.targets.tolist() == [
        [none, 1, 2, 2, none, none, 0, none],
        [none, 0, none, none, none, none, none, none],
    ]
    assert data.train.inputs["attention_mask"].tolist() == [[1] * 8, [1] * 5 + [0] * 3]
    assert data.train.groups["tokens"].tolist() == [8, 5]


def test_word_removed_by_the_normalizer_is_unknown(folder: Path) -> None:
    """Use a word that consists only of a zero-width joiner. If this word produced no piece, the tags of later words
    would shift."""
    data = prepared(raw("\u200d/O Rio/B-a"), tokenizer=str(folder))
    assert data.train.inputs["input_ids"][0, :4].tolist() == [2, 1, 4, 3]
    assert data.train.targets[0, :4].tolist() == [IGNORED, 0, 1, IGNORED]


def test_fraction_of_words_cut_off_is_recorded(folder: Path) -> None:
    data = prepared(raw("Rio/B-a de/I-a Janeiro/I-a is/O"), tokenizer=str(folder), max_length=5)
    assert data.train.inputs["input_ids"].tolist() == [[2, 4, 5, 6, 3]]
    assert data.train.targets.tolist() == [[IGNORED, 1, 2, 2, IGNORED]]
    assert data.info.details["truncated_share"] == 1
    assert data.info.details["unscored_share"] == 0.25


def test_vocabulary_is_case_sensitive_unless_lowercase_is_set() -> None:
    data = raw(*["Bad/B-a bad/O"] * 9)
    ids = prepared(data).train.inputs["input_ids"][0]
    assert ids[1] != ids[2]
    ids = prepared(data, lowercase=True).train.inputs["input_ids"][0]
    assert ids[1] == ids[2]
    again = prepared(data, lowercase=True)
    assert again.info.details["vocab_size"] < 16
    with pytest.raises(ValueError, match="vocab_size must be at least 16"):
        NerOptions(vocab_size=3)


def test_default_length_is_that_of_the_longest_training_sentence(folder: Path) -> None:
    data = raw("Rio/O", " ".join(["is/O"] * 15))
    short = dataclasses.replace(data, train=data.train.take(np.array([0])))
    assert prepared(data, tokenizer=str(folder)).info.inputs["input_ids"].shape == (24,)
    assert prepared(short, tokenizer=str(folder)).info.inputs["input_ids"].shape == (8,)
    assert prepared(raw(" ".join(["is/O"] * 600)), tokenizer=str(folder)).info.inputs["input_ids"].shape == (512,)


def test_prepare_rejects_invalid_tags(folder: Path) -> None:
    with pytest.raises(DataError, match="must be the tags O, B-type and I-type; 'LOC' is not one of them"):
        prepared(raw("Rio/LOC", names=("O", "LOC")))
    with pytest.raises(DataError, match="'O' is missing"):
        prepared(raw("Rio/B-a", names=("B-a", "I-a")))
    data = raw("Rio/B-a is/O", "is/O")
    data.test.targets[0, 1] = IGNORED
    with pytest.raises(DataError, match="training sentence 0 has 2 words but 1 tags"):  # the splits share arrays
        prepared(data)


def test_checkpoint_options_select_the_tokenizer_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    assert NamedEntities().checkpoint_options(folder) == {"tokenizer": str(folder)}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no tokenizer \(tokenizer\.json or vocab\.txt\)"):
        NamedEntities().checkpoint_options(empty)
    (folder / "vocab.txt").write_text("rio\nde\n")
    with pytest.raises(DataError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        prepared(raw("Rio/O"), tokenizer=str(folder))


def test_task_declares_a_recipe_and_its_metric() -> None:
    assert isinstance(NamedEntities.recipe, Recipe)
    assert NamedEntities.metric in NamedEntities.metrics


@pytest.mark.parametrize("letters", [100, 101, 150, 200, 201, 400])
def test_long_words_are_divided_unless_the_tokenizer_is_published(folder: Path, letters: int) -> None:
    data = raw(*[f"{'ab' * letters}/B-a is/O"] * 5)
    learned = prepared(data)
    assert learned.info.details["unknown_share_test"] == 0
    assert learned.info.warnings == ()
    assert (learned.test.targets != IGNORED).sum() == 2 * 5
    published = prepared(data, tokenizer=str(folder))
    assert published.info.details["unknown_share_test"] == 0.5


@pytest.mark.parametrize(("unknown", "warned"), [(0, False), (1, False), (2, True), (9, True)])
def test_unknown_tokens_are_a_warning_above_a_tenth(folder: Path, unknown: int, warned: bool) -> None:
    data = prepared(raw(" ".join(["xyz/O"] * unknown + ["is/O"] * (10 - unknown))), tokenizer=str(folder))
    assert data.info.details["unknown_share_training"] == unknown / 10
    assert any("use a checkpoint with another tokenizer" in each for each in data.info.warnings) == warned


def test_truncated_and_unknown_sentences_are_counted(folder: Path) -> None:
    data = prepared(raw("xyz/O", "is/O is/O is/O is/O"), tokenizer=str(folder), max_length=4)
    assert any(each.startswith("1 of 2 test sentences consist only of [UNK]") for each in data.info.warnings)
    assert any(each.startswith("1 of 2 test sentences (50.0%) were truncated to 4") for each in data.info.warnings)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"vocab_size": 12, "max_position_embeddings": 16}, ""),
        ({"vocab_size": 500}, ""),
        ({}, ""),
        ({"vocab_size": 11}, "has 12 tokens, but the checkpoint .* has only 11 embeddings .*; resize the embeddings"),
        ({"vocab_size": 1}, "has only 1 embeddings"),
        (
            {"max_position_embeddings": 15},
            "max_length is 16, but the checkpoint .* has 15 positions; set task.max_length=15",
        ),
        ({"max_position_embeddings": 3}, "has 3 positions"),
        ({"vocab_size": "many"}, "cannot be read"),
    ],
)
def test_checkpoints_that_are_too_small_are_rejected(folder: Path, sizes: dict[str, object], problem: str) -> None:
    (folder / "config.json").write_text(json.dumps(sizes))
    options = NerOptions(tokenizer=str(folder), max_length=16)
    if not problem:
        NamedEntities().check_checkpoint(folder, options)
    else:
        with pytest.raises(UsageError, match=problem):
            NamedEntities().check_checkpoint(folder, options)


@pytest.mark.parametrize(("positions", "length"), [(4, 4), (8, 8), (9, 9), (512, 24)])
def test_default_length_is_capped_at_the_positions(folder: Path, positions: int, length: int) -> None:
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
    data = prepared(raw(" ".join(["is/O"] * 20)), tokenizer=str(folder))
    assert data.info.inputs["input_ids"].shape == (length,)

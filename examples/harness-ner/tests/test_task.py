"""From words to tokens: which position has the tag of which word."""

from __future__ import annotations

import dataclasses
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
    """Of sentences such as ``Rio/B-a is/O``, the same in all splits."""
    tagged = [[tuple(word.rsplit("/", 1)) for word in sentence.split(" ")] for sentence in sentences]
    part = split(tagged, names)  # type: ignore[arg-type]
    return RawData(train=part, validation=part, test=part, label_names=names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return tmp_path


def prepared(data: RawData, **options: Any) -> PreparedData:
    return NamedEntities().prepare(data, NerOptions(**options))


def test_the_first_piece_of_a_word_has_its_tag(folder: Path) -> None:
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


def test_a_word_of_which_nothing_is_left_is_unknown(folder: Path) -> None:
    """A zero-width joiner by itself, as in tweets: it would lose its tag, and the words after it theirs."""
    data = prepared(raw("\u200d/O Rio/B-a"), tokenizer=str(folder))
    assert data.train.inputs["input_ids"][0, :4].tolist() == [2, 1, 4, 3]
    assert data.train.targets[0, :4].tolist() == [IGNORED, 0, 1, IGNORED]


def test_words_that_are_cut_away_are_told(folder: Path) -> None:
    data = prepared(raw("Rio/B-a de/I-a Janeiro/I-a is/O"), tokenizer=str(folder), max_length=5)
    assert data.train.inputs["input_ids"].tolist() == [[2, 4, 5, 6, 3]]
    assert data.train.targets.tolist() == [[IGNORED, 1, 2, 2, IGNORED]]
    assert data.info.details["truncated_share"] == 1
    assert data.info.details["unscored_share"] == 0.25


def test_the_vocabulary_is_learned_with_capitals_unless_they_are_lowered() -> None:
    data = raw(*["Bad/B-a bad/O"] * 9)
    ids = prepared(data).train.inputs["input_ids"][0]
    assert ids[1] != ids[2]
    ids = prepared(data, lowercase=True).train.inputs["input_ids"][0]
    assert ids[1] == ids[2]
    again = prepared(data, lowercase=True)
    assert again.info.details["vocab_size"] < 16
    with pytest.raises(ValueError, match="vocab_size must be at least 16"):
        NerOptions(vocab_size=3)


def test_the_default_length_is_that_of_the_longest_training_sentence(folder: Path) -> None:
    data = raw("Rio/O", " ".join(["is/O"] * 15))
    short = dataclasses.replace(data, train=data.train.take(np.array([0])))
    assert prepared(data, tokenizer=str(folder)).info.inputs["input_ids"].shape == (24,)
    assert prepared(short, tokenizer=str(folder)).info.inputs["input_ids"].shape == (8,)
    assert prepared(raw(" ".join(["is/O"] * 600)), tokenizer=str(folder)).info.inputs["input_ids"].shape == (512,)


def test_what_is_no_tagging_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="must be the tags O, B-kind and I-kind; 'LOC' is none"):
        prepared(raw("Rio/LOC", names=("O", "LOC")))
    with pytest.raises(DataError, match="'O' is missing"):
        prepared(raw("Rio/B-a", names=("B-a", "I-a")))
    data = raw("Rio/B-a is/O", "is/O")
    data.test.targets[0, 1] = IGNORED
    with pytest.raises(DataError, match="training sentence 0 has 2 words and 1 tags"):  # the splits share arrays
        prepared(data)


def test_a_checkpoint_brings_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    assert NamedEntities().checkpoint_options(folder) == {"tokenizer": str(folder)}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"has no tokenizer: neither tokenizer\.json nor vocab\.txt"):
        NamedEntities().checkpoint_options(empty)
    (folder / "vocab.txt").write_text("rio\nde\n")
    with pytest.raises(DataError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        prepared(raw("Rio/O"), tokenizer=str(folder))


def test_the_recipe_is_one() -> None:
    assert isinstance(NamedEntities.recipe, Recipe)
    assert NamedEntities.metric in NamedEntities.metrics

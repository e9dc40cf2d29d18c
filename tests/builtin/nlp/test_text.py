from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_nlp import text
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import DataError

WORDS = st.text(alphabet="abcdeäßñŁ", min_size=1, max_size=12)
SENTENCES = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
CORPUS = ["der Hund", "die Hunde", "das Haus", "die Häuser", "ein Hund im Haus", "Łódź", "ñandú", "abcde äß"]

LEARN = """
from harness import NoOptions
from harness_nlp import text
from harness_nlp.cldr_langid import CldrLangid
texts = [text.clean(value) for value in CldrLangid().load(NoOptions()).train.inputs["text"]]
print(*text.learn_vocabulary(texts, 1500, lowercase=True), sep="\\n")
"""


def _words(ids: list[int], vocabulary: tuple[str, ...]) -> list[str]:
    """Join pieces to words: a piece that starts with ## continues the previous word."""
    words: list[str] = []
    for number in ids:
        piece = vocabulary[number]
        if piece.startswith("##"):
            words[-1] += piece[2:]
        else:
            words.append(piece)
    return words


@given(st.text())
def test_clean_is_idempotent_composed_and_single_spaced(value: str) -> None:
    cleaned = text.clean(value)
    assert text.clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned.split() == cleaned.split(" ") if cleaned else True


def test_clean_composes_accents_and_joins_lines() -> None:
    assert text.clean("  Cafe\u0301\n\tau\u00a0lait ") == "Café au lait"


@given(SENTENCES)
def test_joined_pieces_are_the_words(sentence: str) -> None:
    vocabulary = text.learn_vocabulary([sentence, *CORPUS], 80, lowercase=False)
    (ids,) = text.encode([sentence], text.tokenizer_for(vocabulary, lowercase=False))
    assert _words(ids, vocabulary) == sentence.split()


@given(SENTENCES)
def test_lower_case_makes_case_irrelevant(sentence: str) -> None:
    vocabulary = text.learn_vocabulary(CORPUS, 80, lowercase=True)
    # str.upper would turn ß into SS, which lowercasing does not revert.
    capitals = "".join(character if character == "ß" else character.upper() for character in sentence)
    small, large = text.encode([sentence, capitals], text.tokenizer_for(vocabulary, lowercase=True))
    assert small == large


@given(st.lists(SENTENCES, min_size=1, max_size=6), st.integers(16, 200))
def test_vocabulary_starts_with_the_special_tokens_and_keeps_its_size(texts: list[str], size: int) -> None:
    vocabulary = text.learn_vocabulary(texts, size, lowercase=True)
    assert vocabulary[:4] == text.SPECIAL_TOKENS
    assert len(vocabulary) == len(set(vocabulary)) <= size


def test_a_small_vocabulary_omits_the_rarest_characters() -> None:
    vocabulary = text.learn_vocabulary(["aaaa bbbb cccc dddd eeee ffff", "abcdef", "z"], 16, lowercase=True)
    assert set(vocabulary[4:]) == {*"abcdef", *("##" + c for c in "abcdef")}
    assert text.encode(["az", "a"], text.tokenizer_for(vocabulary, lowercase=True)) == [[1], [vocabulary.index("a")]]


def test_order_of_the_texts_does_not_matter() -> None:
    assert text.learn_vocabulary(CORPUS, 60, lowercase=True) == text.learn_vocabulary(CORPUS[::-1], 60, lowercase=True)


def test_frequent_words_become_pieces() -> None:
    vocabulary = text.learn_vocabulary(["hund katze"] * 5 + ["hunger"], 40, lowercase=True)
    assert {"hund", "katze"} <= set(vocabulary)


def test_learn_words_keeps_words_that_occur_twice() -> None:
    vocabulary = text.learn_words(["The cat, the dog", "a cat", "the end"], 7, lowercase=True)
    assert vocabulary == (*text.SPECIAL_TOKENS, "the", "cat")
    ids = text.encode(["the cats, the cat", "doghouse"], text.tokenizer_for(vocabulary, lowercase=True))
    assert ids == [[4, 1, 1, 4, 5], [1]]
    assert text.learn_words(["b b a a c c"], 6, lowercase=True) == (*text.SPECIAL_TOKENS, "a", "b")


def test_special_tokens_in_a_text_are_treated_as_text() -> None:
    vocabulary = text.learn_vocabulary(["[SEP] [CLS] [PAD] sep cls pad"], 60, lowercase=False)
    (ids,) = text.encode(["[SEP] [PAD] [CLS]"], text.tokenizer_for(vocabulary, lowercase=False))
    assert min(ids) >= len(text.SPECIAL_TOKENS)


def test_accents_are_kept() -> None:
    vocabulary = text.learn_vocabulary(["más mas"], 40, lowercase=True)
    first, second = text.encode(["más", "mas"], text.tokenizer_for(vocabulary, lowercase=True))
    assert first != second


def test_the_vocabulary_is_deterministic_across_processes() -> None:
    # The hash maps of the library have a random seed in every process.
    vocabularies = [
        subprocess.run([sys.executable, "-c", LEARN], capture_output=True, text=True, check=True).stdout for _ in "123"
    ]
    assert len(vocabularies[0].splitlines()) == 1500
    assert len(set(vocabularies)) == 1


@given(st.lists(st.lists(st.integers(4, 9), max_size=20), min_size=1, max_size=5), st.integers(3, 24))
def test_pad_adds_special_tokens_truncates_and_pads(rows: list[list[int]], max_length: int) -> None:
    vocabulary = [*text.SPECIAL_TOKENS, *"abcdef"]
    arrays = text.pad(rows, vocabulary, max_length)
    for array in arrays.values():
        assert array.dtype == np.int32
        assert array.shape == (len(rows), max_length)
    for row, ids, mask in zip(rows, arrays["input_ids"], arrays["attention_mask"], strict=True):
        length = min(len(row) + 2, max_length)
        assert mask.tolist() == [1] * length + [0] * (max_length - length)
        assert ids[:length].tolist() == [2, *row[: max_length - 2], 3]
        assert not ids[length:].any()


def test_an_empty_text_becomes_two_special_tokens() -> None:
    vocabulary = text.learn_vocabulary(CORPUS, 60, lowercase=True)
    ids = text.encode([""], text.tokenizer_for(vocabulary, lowercase=True))
    assert ids == [[]]
    assert text.pad(ids, vocabulary, 4)["input_ids"].tolist() == [[2, 3, 0, 0]]


@pytest.mark.parametrize("lowercase", [True, False])
def test_scripts_without_spaces_and_emoji_have_no_unknown_tokens(lowercase: bool) -> None:
    texts = ["日本語のテキスト", "한국어", "😀 ok 😀"]
    vocabulary = text.learn_vocabulary(texts, 200, lowercase=lowercase)
    for ids in text.encode([text.clean(value) for value in texts], text.tokenizer_for(vocabulary, lowercase=lowercase)):
        assert ids
        assert vocabulary.index(text.UNKNOWN) not in ids


SCRIPTS = {
    "thai": "กขคงจฉชซฌญดตถทธนบปผฝพฟภมยรลวศสหอ",
    "kana": "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほ",
    "dna": "acgt",
    "protein": "acdefghiklmnpqrstvwy",
    "base64": "abcdefghijklmnopqrstuvwxyz0123456789",
    "hex": "0123456789abcdef",
    "burmese": "ကခဂဃငစဆဇဈညတထဒဓနပဖဗဘမယရလဝသဟအ",
    "khmer": "កខគឃងចឆជឈញដឋឌឍណតថទធនបផពភមយរលវសហអ",
    "lao": "ກຂຄງຈຊຍດຕຖທນບປຜຝພຟມຢຣລວສຫອຮ",
    "katakana": "アイウエオカキクケコサシスセソタチツテトナニヌネノ",
}
"""Alphabets of texts that have no spaces."""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("letters", [99, 100, 101, 199, 200, 201, 250, 1000])
def test_words_of_any_length_have_no_unknown_tokens(script: str, letters: int) -> None:
    rng = np.random.default_rng(letters)
    texts = ["".join(rng.choice(list(SCRIPTS[script]), letters)) for _ in range(3)]
    vocabulary = text.learn_vocabulary(texts, 300, lowercase=True)
    for value, ids in zip(texts, text.encode(texts, text.tokenizer_for(vocabulary, lowercase=True)), strict=True):
        assert vocabulary.index(text.UNKNOWN) not in ids
        assert "".join(vocabulary[number].removeprefix("##") for number in ids) == value


def test_time_for_a_long_word_is_proportional_to_its_length() -> None:
    """Encode a word that would take about an hour if it were not divided into parts."""
    word = "".join(np.random.default_rng(0).choice(list("acgt"), 50_000))
    vocabulary = text.learn_vocabulary([word[:2_000]], 300, lowercase=True)
    (ids,) = text.encode([word], text.tokenizer_for(vocabulary, lowercase=True))
    assert "".join(vocabulary[number].removeprefix("##") for number in ids) == word


def test_long_words_belong_to_a_vocabulary_of_words() -> None:
    url = "a" * 130
    vocabulary = text.learn_words([url, url, "other words"], 300, lowercase=True)
    assert text.encode([url], text.tokenizer_for(vocabulary, lowercase=True)) == [
        [vocabulary.index("a" * 100), vocabulary.index("a" * 30)]
    ]


@pytest.mark.parametrize(("letters", "unknown"), [(100, False), (101, True), (500, True)])
def test_published_tokenizers_keep_their_limit(tmp_path: Path, letters: int, unknown: bool) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*text.SPECIAL_TOKENS, "a", "##a"]) + "\n")
    ((ids,),), vocabulary = text.encode_pretrained([["a" * letters]], str(tmp_path))
    assert ids == ([vocabulary.index(text.UNKNOWN)] if unknown else [4, *[5] * (letters - 1)])


def test_published_vocabulary_with_mixed_line_ends_is_refused(tmp_path: Path) -> None:
    lines = [*text.SPECIAL_TOKENS, "a", "b"]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    assert text.encode_pretrained([["a b"]], str(tmp_path))[0][0] == [[4, 5]]
    (tmp_path / "vocab.txt").write_bytes("\n".join(lines).encode() + b"\r\nc\n")
    with pytest.raises(DataError, match=r"vocab\.txt: line 6 ends with a carriage return, unlike other lines"):
        text.encode_pretrained([["a b"]], str(tmp_path))


PARTS = (
    "film",
    "unbelievable",
    "a" * 99,
    "b" * 250,
    "\u00e9t\u0065\u0301",
    "\u6f22\u5b57",
    "x,y!",
    "\U0001f600",
    " ",
    "\n \t",
)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(PARTS), max_size=120).map("".join), max_size=3)
    | st.lists(st.lists(st.sampled_from(PARTS), max_size=120).map(" ".join), max_size=3),
    count=st.integers(0, 12),
    learn=st.sampled_from([text.learn_vocabulary, text.learn_words]),
)
def test_first_tokens_of_a_long_text_are_those_of_the_whole_text(texts: list[str], count: int, learn: Any) -> None:
    tokenizer = text.tokenizer_for(learn(["film film", *PARTS, *PARTS], 120, lowercase=True), lowercase=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "CHARACTERS", 1)
        found = text.encode_start(texts, tokenizer, count)
    assert found == [ids[:count] for ids in text.encode([*map(text.clean, texts)], tokenizer)]


def test_first_tokens_do_not_need_the_rest_of_the_text() -> None:
    tokenizer = text.tokenizer_for(text.learn_words(["the film"] * 2, 10, lowercase=True), lowercase=True)
    seen: list[int] = []
    real = text.encode

    def encode(texts: list[str], tokenizer: Any) -> list[list[int]]:
        seen.extend(map(len, texts))
        return real(texts, tokenizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "encode", encode)
        (ids,) = text.encode_start(["the film " * 500_000], tokenizer, 510)
    assert len(ids) == 510
    assert sum(seen) < 10_000

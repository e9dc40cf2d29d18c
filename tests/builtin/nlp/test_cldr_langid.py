from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from harness_nlp.cldr_langid import LANGUAGES, CldrLangid, names_by_language

from harness import NoOptions, RawData

DIGEST = """
import hashlib
from harness import NoOptions
from harness_nlp.cldr_langid import CldrLangid
data = CldrLangid().load(NoOptions())
sha = hashlib.sha256()
for split in (data.train, data.validation, data.test):
    for text, label in zip(split.inputs["text"], split.targets):
        sha.update(f"{text}|{label};".encode())
print(sha.hexdigest())
"""


@pytest.fixture(scope="module")
def data() -> RawData:
    return CldrLangid().load(NoOptions())


def _texts(data: RawData) -> list[str]:
    return [text for split in (data.train, data.validation, data.test) for text in split.inputs["text"]]


def test_split_sizes_are_as_documented(data: RawData) -> None:
    # The tolerance is for other releases of CLDR, which change some names.
    sizes = [len(data.train), len(data.validation), len(data.test)]
    assert sizes == pytest.approx([12_586, 1_574, 1_574], rel=0.02)
    counts = Counter(label for split in (data.train, data.validation, data.test) for label in split.targets.tolist())
    assert set(counts) == set(range(20))
    assert min(counts.values()) > 400
    assert max(counts.values()) / sum(counts.values()) < 0.08


def test_labels_are_language_codes(data: RawData) -> None:
    assert data.label_names == LANGUAGES
    assert len(set(LANGUAGES)) == 20
    first = {label: text for text, label in zip(data.train.inputs["text"], data.train.targets.tolist(), strict=True)}
    assert first.keys() == set(range(20))
    known = {"Kreikka": "fi", "Griechenland": "de", "Greece": "en", "Görögország": "hu", "Yunanistan": "tr"}
    found = {
        text: data.label_names[label]
        for split in (data.train, data.validation, data.test)
        for text, label in zip(split.inputs["text"], split.targets.tolist(), strict=True)
        if text in known
    }
    assert found == known


def test_names_are_unique_across_splits(data: RawData) -> None:
    folded = [text.casefold() for text in _texts(data)]
    assert len(folded) == len(set(folded))


def test_names_of_a_language_differ_in_their_letters() -> None:
    for code, names in names_by_language().items():
        letters = ["".join(filter(str.isalpha, name.casefold())) for name in names]
        assert len(letters) == len(set(letters)), code
        assert min(map(len, letters)) >= 3


def test_a_name_that_two_languages_share_is_left_out(data: RawData) -> None:
    texts = set(_texts(data))
    assert "Portugal" not in texts
    assert "Japan" not in texts  # English, Danish, Swedish and German alike


def test_names_are_clean_and_in_latin_script(data: RawData) -> None:
    for text in _texts(data):
        assert text == " ".join(unicodedata.normalize("NFC", text).split())
    latin = [
        character.isascii() or unicodedata.name(character).startswith("LATIN")
        for text in _texts(data)
        for character in text
        if character.isalpha()
    ]
    assert sum(latin) / len(latin) > 0.9999


def test_splits_are_stratified(data: RawData) -> None:
    counts = [Counter(split.targets.tolist()) for split in (data.train, data.validation, data.test)]
    for label in range(20):
        total = sum(count[label] for count in counts)
        assert counts[1][label] == counts[2][label] == round(total / 10)


def test_examples_of_a_split_are_not_sorted_by_label(data: RawData) -> None:
    for split in (data.train, data.validation, data.test):
        for part in (split.targets[:200], split.targets[-200:]):
            assert len(set(part.tolist())) >= 18


def test_loading_is_deterministic_across_processes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_character_ngrams_reach_the_documented_accuracy(data: RawData) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=300, tol=1e-3),
    )
    model.fit(data.train.inputs["text"], data.train.targets)
    assert model.score(data.test.inputs["text"], data.test.targets) == pytest.approx(0.84, abs=0.02)

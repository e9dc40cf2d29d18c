"""Tests of the datasets and of the functions that read them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from harness_ner.cldr_sentences import SIZES, CldrSentences, by_split, names
from harness_ner.tagged import label_names, split
from harness_ner.wnut17 import FILES, Wnut17, read

from harness import IGNORED, DataError, NoOptions
from harness.testing import assert_as_declared


def test_label_names_are_bio_tags() -> None:
    assert label_names(("a", "b-c")) == ("O", "B-a", "I-a", "B-b-c", "I-b-c")
    assert len(Wnut17.label_names) == 13


def test_split_has_a_class_for_each_word_and_ignores_padding() -> None:
    built = split([[("Rio", "B-a"), ("Negro", "I-a"), ("flows", "O")], [("Hi", "O")]], label_names("a"))
    assert built.inputs["words"].tolist() == [("Rio", "Negro", "flows"), ("Hi",)]
    assert built.targets.tolist() == [[1, 2, 0], [0, IGNORED, IGNORED]]
    assert built.targets.dtype == np.int64


def test_split_rejects_unknown_tags_and_empty_sentences() -> None:
    with pytest.raises(DataError, match="sentence 1 has the unknown tag 'B-c'"):
        split([[("x", "O")], [("y", "B-c")]], label_names("a"))
    with pytest.raises(DataError, match="sentence 0 has no words"):
        split([[]], label_names("a"))


def test_read_parses_conll_files_and_reports_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_bytes("Rio\tB-location\nis\tO\n\t\n\n@me\tO\r\n\u2026\tO\n".encode())
    assert read(path) == [[("Rio", "B-location"), ("is", "O")], [("@me", "O"), ("\u2026", "O")]]
    path.write_text("Rio\tB-location\n\nis O\n")
    with pytest.raises(
        DataError, match=r"x\.conll, line 3: expected a word and its tag, separated by a tab, found 'is O'"
    ):
        read(path)


def test_each_name_has_one_split_and_one_type() -> None:
    every = names()
    parts = by_split(every)
    assert list(parts) == list(SIZES)
    for kind, of_kind in every.items():
        assigned = [name for part in parts.values() for name in part[kind]]
        assert sorted(assigned) == sorted(of_kind)
        assert len(set(assigned)) == len(assigned) > 250
    assert "Unknown Region" not in every["territory"]


def test_each_split_has_every_class_and_no_duplicates() -> None:
    data = CldrSentences().load(NoOptions())
    for part in (data.train, data.validation, data.test):
        assert set(np.unique(part.targets)) == {IGNORED, *range(7)}
        assert len(set(part.inputs["words"])) == len(part)


@pytest.mark.skipif(
    not (
        Path(os.environ.get("HARNESS_DATA_MIRROR", "/nowhere")) / Wnut17.files[0].url.removeprefix("https://")
    ).exists(),
    reason="HARNESS_DATA_MIRROR is not set or does not contain the wnut17 files",
)
def test_published_files_of_wnut17_are_as_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    data = Wnut17().load(NoOptions())
    assert_as_declared(Wnut17(), data)
    assert [int((part.targets != IGNORED).sum()) for part in (data.train, data.validation, data.test)] == [
        62_730,
        15_733,
        23_394,
    ]
    count = dict(zip(data.label_names, np.bincount(data.test.targets[data.test.targets != IGNORED]), strict=True))
    assert (count["B-person"], count["I-creative-work"], count["I-corporation"]) == (429, 218, 22)
    assert data.train.inputs["words"][0][:2] == ("@paulwalk", "It")
    assert FILES[2] == "emerging.test.annotated"

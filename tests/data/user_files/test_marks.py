"""Tests of the normalization of texts with many combining characters."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.user_files import marks

ALPHABET = "ae\u0300\u0316\u0323\u1100\u1161\u11a8\u6f22 "


@given(st.text(ALPHABET, max_size=60))
def test_nfc_is_that_of_unicodedata_for_texts_without_long_sequences(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "MAX_MARKS", 60)
        assert marks.nfc(text) == unicodedata.normalize("NFC", text)
        assert not marks.has_many_marks(text)


@given(st.text(ALPHABET, max_size=60))
def test_nfc_keeps_the_characters_of_texts_with_long_sequences(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "MAX_MARKS", 2)
        found = marks.nfc(text)
    assert sorted(unicodedata.normalize("NFD", found)) == sorted(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize(("count", "many"), [(200, False), (201, True), (2_000_000, True)])
def test_long_sequences_are_found_and_normalized_in_linear_time(count: int, many: bool) -> None:
    text = "b\u00e9 e" + ("\u0316\u0300" * count)[:count] + "a\u0301"
    start = time.perf_counter()
    assert marks.has_many_marks(text) is many
    found = marks.nfc(text)
    assert time.perf_counter() - start < 30
    assert found.startswith("b\u00e9 \u00e8")
    assert found.endswith("\u00e1")

"""Tests of the features of the baselines."""

from __future__ import annotations

import numpy as np
import pytest
from harness_baselines.features import MAX_CATEGORIES, Mfcc, NativeColumns, Terms, flat, nothing, tokens
from hypothesis import given
from hypothesis import strategies as st

from harness import RawData, Split, TableEncoder

RATE_HZ = 8000


def mfcc(**sizes: int) -> Mfcc:
    return Mfcc(**{"rate_hz": RATE_HZ, "coefficients": 13, "mel_bands": 24, "parts": 3} | sizes)


def tone(hertz: float, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)


def test_a_tone_has_its_energy_in_the_filter_around_it() -> None:
    """Invert the DCT of all coefficients to get the energy of each filter; the centers are equally spaced in mel."""
    from scipy.fft import idct

    frames = mfcc(coefficients=24).frames(tone(1000))
    energies = idct(frames, type=2, norm="ortho", axis=1).mean(axis=0)
    centers = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 26)[1:-1] / 2595) - 1)
    assert abs(centers - 1000).argmin() == energies.argmax()


def test_frames_are_25_ms_long_with_a_hop_of_10_ms() -> None:
    assert mfcc().frames(tone(440)).shape == (48, 13)  # (4000 - 200) / 80 + 1
    assert mfcc().frames(tone(440)[:50]).shape == (1, 13)


def test_loudness_moves_the_first_coefficient_only() -> None:
    quiet, loud = (mfcc().frames(volume * (tone(300) + tone(2000))).mean(axis=0) for volume in (1, 10))
    assert loud[0] - quiet[0] == pytest.approx(np.sqrt(24) * np.log(100), rel=1e-3)  # the DCT is orthonormal
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=0.05)


def test_padding_is_ignored() -> None:
    clip, padded = tone(700), np.concatenate([tone(700), np.zeros(3000, np.float32)])
    one, other = mfcc()({"input_values": clip[None]}), mfcc()({"input_values": padded[None]})
    assert one.shape == (1, 2 * 13 * 3)
    np.testing.assert_array_equal(one, other)


def test_silence_and_clips_shorter_than_their_parts_are_finite() -> None:
    clips = np.zeros((2, 400), np.float32)
    clips[1, :30] = 1
    assert np.isfinite(mfcc(parts=7)({"input_values": clips})).all()


def test_tokens_are_without_padding() -> None:
    inputs = {"input_ids": np.array([[5, 6, 0], [7, 0, 0]]), "attention_mask": np.array([[1, 1, 0], [1, 0, 0]])}
    assert tokens(inputs) == [[5, 6], [7]]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 4))
def test_terms_are_all_n_grams_of_ids(ids: list[int], longest: int) -> None:
    terms = Terms(longest)(ids)
    assert len(terms) == sum(max(0, len(ids) - size + 1) for size in range(1, longest + 1))
    text = [*map(str, ids)]
    assert all(" ".join(map(str, term)) in " ".join(text) for term in terms)
    assert [term[0] for term in terms[: len(ids)]] == ids


def test_flat_flattens_and_nothing_returns_one_column() -> None:
    image = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(flat({"pixel_values": image})[1], np.arange(12.0, 24.0))
    assert nothing({"pixel_values": image}).shape == (2, 1)


def test_native_columns_restores_missing_numbers_and_categories() -> None:
    numbers = np.array([[1.0, 5.0], [np.nan, 6.0], [3.0, 7.0]])
    cells = np.array([["b", None], ["a", "x"], ["b", "x"]], object)
    train = Split(inputs={"features": numbers, "categories": cells}, targets=np.zeros(3, np.int64))
    encoder = TableEncoder.fit(RawData(train=train, validation=train, test=train))
    native = NativeColumns(encoder.columns)
    nan = np.nan
    expected = [[-np.sqrt(1.5), -np.sqrt(1.5), 1, 0], [nan, 0, 0, 1], [np.sqrt(1.5), np.sqrt(1.5), 1, 1]]
    np.testing.assert_allclose(native(encoder.encode(train.inputs)), expected, rtol=1e-6, atol=1e-7)
    assert native.categorical == [False, False, True, True]
    new = {"features": numbers[:1], "categories": np.array([["new", "x"]], object)}
    np.testing.assert_allclose(native(encoder.encode(new))[0, 2:], [nan, 1])


def test_native_columns_with_too_many_categories_are_one_hot() -> None:
    names = np.array([[f"{number:03}"] for number in range(MAX_CATEGORIES + 1)], object)
    train = Split(
        inputs={"features": np.empty((len(names), 0)), "categories": names}, targets=np.zeros(len(names), np.int64)
    )
    encoder = TableEncoder.fit(RawData(train=train, validation=train, test=train))
    native = NativeColumns(encoder.columns)
    np.testing.assert_array_equal(native(encoder.encode(train.inputs)), np.eye(len(names)))
    assert native.categorical == [False] * len(names)

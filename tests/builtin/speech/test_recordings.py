"""Tests of the facts and warnings about recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness_speech import recordings
from harness_speech.task import Speech, SpeechOptions
from hypothesis import given
from hypothesis import strategies as st

from harness import DataInfo, RawData, Split

RATE_HZ = 8000
TIME_S = np.arange(RATE_HZ) / RATE_HZ
NOISE = np.random.default_rng(0).normal(size=RATE_HZ)


def tone(hz: float = 440, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * TIME_S)


def described(waveforms: list[np.ndarray], rates_hz: list[int] | None = None, **options: Any) -> DataInfo:
    """Return the description of recordings that form the test split; the others contain tones of one second."""

    def split(parts: list[np.ndarray], rates: list[int]) -> Split:
        array = np.empty(len(parts), object)
        array[:] = [np.asarray(part, np.float32) for part in parts]
        inputs = {"waveform": array, "sample_rate_hz": np.array(rates, np.int64)}
        return Split(inputs=inputs, targets=np.arange(len(parts)) % 2)

    usual = split([tone(300 + 10 * number) for number in range(20)], [RATE_HZ] * 20)
    data = RawData(
        train=usual,
        validation=usual,
        test=split(waveforms, rates_hz or [RATE_HZ] * len(waveforms)),
        label_names=("no", "yes"),
    )
    return Speech().prepare(data, SpeechOptions(**options)).info


def test_usual_recordings_have_no_warnings() -> None:
    assert described([tone(), tone(880, 0.1), 0.01 * NOISE.clip(-3, 3)]).warnings == ()


@pytest.mark.parametrize(
    ("waveform", "silent"),
    [
        (np.zeros(RATE_HZ), True),
        (np.full(RATE_HZ, 0.5), True),  # a constant offset
        (0.5 + tone(level=5e-4), True),
        (tone(level=9.9e-4), True),
        (tone(level=1.1e-3), False),
        (tone(level=1e-4), True),
        (1e-5 * NOISE, True),
        (0.01 * NOISE, False),
        (np.where(np.arange(RATE_HZ) == 100, 0.5, 0), False),  # a click
        (np.concatenate([np.zeros(RATE_HZ), tone()]), True),  # the sound is in the part that is truncated
        (np.mean([tone(), -tone()], axis=0), True),  # stereo channels that cancel each other
        (np.mean([tone(), -0.999 * tone()], axis=0), True),
        (np.zeros(0), True),
        (np.zeros(1), True),
    ],
)
def test_nearly_silent_recordings_are_counted(waveform: np.ndarray, silent: bool) -> None:
    info = described([waveform, tone(), tone(500)])
    assert info.details["silent_test"] == silent
    found = [each for each in info.warnings if "nearly silent" in each]
    assert len(found) == silent
    if silent:
        assert found[0].startswith("1 of 3 test recordings (33.3%)")
        assert "task.seconds" in found[0]


@pytest.mark.parametrize(
    ("waveform", "clipped"),
    [
        (tone(level=3).clip(-1, 1), True),
        (tone(level=1.2).clip(-1, 1), True),
        (tone(level=1.2).clip(-2, 1), True),  # one side only
        (tone(level=1.2).clip(-1, 32767 / 32768), True),  # 16 bits
        (tone(level=1.2).clip(-0.98, 0.98), True),  # mu-law
        ((1e4 * NOISE).clip(-1, 1), True),  # integers stored as floating-point numbers
        (NOISE.clip(-1, 1), True),
        (tone(level=1.0), False),
        (tone(level=0.5).clip(-0.3, 0.3), False),  # below full scale
        (NOISE / np.abs(NOISE).max(), False),
        (np.round(tone(level=0.99) * 32767) / 32768, False),
        (np.where(np.arange(RATE_HZ) == 100, 1.0, tone()), False),  # one sample at full scale
        (np.zeros(RATE_HZ), False),
        (np.zeros(1), False),
    ],
)
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44100])
def test_clipped_recordings_are_counted(waveform: np.ndarray, clipped: bool, rate_hz: int) -> None:
    info = described([waveform, tone(), tone(500)], [rate_hz, RATE_HZ, RATE_HZ])
    assert info.details["clipped_test"] == clipped
    assert sum("are clipped" in each for each in info.warnings) == clipped


@pytest.mark.parametrize(
    ("seconds", "truncated", "halved", "warned"),
    [
        *[(0.9, 1, 0, True), (0.51, 1, 0, True), (0.5, 1, 0, True), (0.49, 1, 1, True), (0.1, 1, 1, True)],
        *[(1, 0, 0, False), (1.1, 0, 0, False), (2, 0, 0, False)],
    ],
)
def test_truncated_recordings_are_counted(seconds: float, truncated: int, halved: int, warned: bool) -> None:
    info = described([tone(300 + 10 * number) for number in range(10)], seconds=seconds)
    assert info.details["truncated_share_test"] == info.details["truncated_share"] == truncated
    found = [each for each in info.warnings if "test recordings" in each and "truncated" in each]
    assert len(found) == warned
    if warned:
        assert f"were truncated to {seconds:.4g} s, {10 * halved} of them to less than half" in found[0]
        assert "(the longest lasts 1 s); set task.seconds" in found[0]


@pytest.mark.parametrize(
    ("seconds", "padded"), [(1, 0), (1.9, 0), (2, 0), (2.1, 1), (3, 1), (10, 1), (60, 1), (0.5, 0)]
)
def test_padded_recordings_are_counted(seconds: float, padded: int) -> None:
    info = described([tone(300 + 10 * number) for number in range(10)], seconds=seconds)
    assert info.details["padded_share_training"] == info.details["padded_share_test"] == padded
    assert sum("mostly of padding" in each and "task.seconds" in each for each in info.warnings) == 3 * padded


@pytest.mark.parametrize(
    ("rates_hz", "rate_hz", "higher", "lower"),
    [
        ([8000, 8000], None, 0, 0),
        ([16000, 8000], None, 1, 0),
        ([44100, 48000], None, 2, 0),
        ([8000, 8000], 16000, 0, 0),
        ([16000, 8000], 16000, 0, 41),
        ([44100, 4000], None, 1, 1),
        ([4000, 4000], None, 0, 2),
        ([11025, 22050], 11025, 1, 40),
    ],
)
def test_mixed_sample_rates_are_counted(rates_hz: list[int], rate_hz: int | None, higher: int, lower: int) -> None:
    found = [each for each in described([tone(), tone(500)], rates_hz, sample_rate_hz=rate_hz).warnings if "Hz" in each]
    if set(rates_hz) == {8000}:
        assert not found
    else:
        assert f"{higher} of 42 recordings lose frequencies, while {lower} have no high frequencies" in found[0]
        assert "task.sample_rate_hz" in found[0]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(1, 40))
def test_facts_agree_with_the_lengths(lengths: list[int], samples: int) -> None:
    waveforms = [np.linspace(-0.5, 0.5, length, dtype=np.float32) for length in lengths]
    facts = recordings.facts(waveforms, waveforms, samples)
    assert facts.truncated == sum(length > samples for length in lengths)
    assert facts.halved == sum(length / 2 > samples for length in lengths)
    assert facts.padded == sum(length < samples / 2 for length in lengths)
    assert facts.silent == sum(length < 2 or samples < 2 for length in lengths)
    assert (facts.longest, facts.recordings) == (max(lengths), len(lengths))


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: x[::-1], lambda x: x.astype(np.float64)])
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3))
def test_clipping_does_not_depend_on_the_sign_or_direction(
    change: Callable[[np.ndarray], np.ndarray], seed: int, level: float
) -> None:
    waveform = (level * np.random.default_rng(seed).normal(size=500)).clip(-1, 1).astype(np.float32)
    assert recordings.is_clipped(change(waveform)) == recordings.is_clipped(waveform)

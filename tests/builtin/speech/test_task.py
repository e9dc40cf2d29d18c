from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from harness_speech.task import Speech, SpeechOptions
from harness_speech.waveforms import fixed_length, normalize, resample
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness import DataError, InputSpec, RawData, Split

WAVEFORMS = arrays(np.float32, st.integers(0, 400), elements=st.floats(-1, 1, width=32))


def _split(lengths: list[int], seed: int) -> Split:
    rng = np.random.default_rng(seed)
    waveforms = np.empty(len(lengths), object)
    for number, length in enumerate(lengths):
        waveforms[number] = rng.uniform(-1, 1, length).astype(np.float32)
    targets = np.arange(len(lengths), dtype=np.int64) % 2
    return Split(inputs={"waveform": waveforms}, targets=targets, groups={"voice": targets})


def _data(lengths: list[int], **details: int) -> RawData:
    return RawData(
        train=_split(lengths, 0),
        validation=_split([10, 20], 1),
        test=_split([3000, 5], 2),
        label_names=("no", "yes"),
        details=details,
    )


@given(WAVEFORMS)
def test_normalized_waveforms_have_zero_mean_and_at_most_unit_variance(waveform: np.ndarray) -> None:
    normalized = normalize(waveform)
    assert normalized.dtype == np.float32
    assert normalized.shape == waveform.shape
    assert np.isfinite(normalized).all()
    if len(waveform):
        assert abs(float(normalized.astype(np.float64).mean())) < 1e-5
        variance = float(np.var(waveform.astype(np.float64)))
        assert np.var(normalized.astype(np.float64)) == pytest.approx(variance / (variance + 1e-7), abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, -1.0])
def test_constant_clips_become_silence(level: float) -> None:
    np.testing.assert_allclose(normalize(np.full(1000, level, np.float32)), 0, atol=1e-8)


@given(st.lists(WAVEFORMS, max_size=5), st.integers(1, 300))
def test_fixed_length_cuts_normalizes_and_pads(waveforms: list[np.ndarray], samples: int) -> None:
    matrix = fixed_length(waveforms, samples)
    assert matrix.shape == (len(waveforms), samples)
    assert matrix.dtype == np.float32
    for row, waveform in zip(matrix, waveforms, strict=True):
        np.testing.assert_array_equal(row[: len(waveform)], normalize(waveform[:samples]))
        assert not row[len(waveform) :].any()


def test_resampling_keeps_a_tone_and_removes_one_above_the_nyquist_frequency() -> None:
    def tone(hz: float, rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * hz * np.arange(rate) / rate)

    kept = resample(tone(1000, 22050), 22050, 8000)
    assert kept.dtype == np.float32
    assert kept.shape == (8000,)
    np.testing.assert_allclose(kept[500:-500], tone(1000, 8000)[500:-500], atol=2e-3)
    assert np.abs(resample(tone(6000, 22050), 22050, 8000)[500:-500]).max() < 1e-3
    np.testing.assert_array_equal(resample(kept, 8000, 8000), kept)


def test_the_default_length_covers_99_percent_of_the_training_clips() -> None:
    lengths = [100] * 197 + [400, 800, 900]
    prepared = Speech().prepare(_data(lengths, sample_rate_hz=8000), SpeechOptions())
    assert prepared.info.inputs == {"input_values": InputSpec(shape=(800,), dtype="float32")}
    assert prepared.info.details["sample_rate_hz"] == 8000
    assert prepared.info.details["truncated_share"] == 1 / 200
    assert (prepared.info.outputs, prepared.info.label_names) == (2, ("no", "yes"))
    assert prepared.train.inputs["input_values"].shape == (200, 800)
    assert prepared.validation.inputs["input_values"].shape == (2, 800)
    assert prepared.test.inputs["input_values"].shape == (2, 800)
    np.testing.assert_array_equal(prepared.train.groups["voice"], prepared.train.targets)


def test_seconds_sets_the_length() -> None:
    prepared = Speech().prepare(_data([100, 3000], sample_rate_hz=8000), SpeechOptions(seconds=0.25))
    assert prepared.info.inputs["input_values"].shape == (2000,)
    assert prepared.info.details["truncated_share"] == 0.5


def test_group_with_the_name_of_the_durations_is_rejected() -> None:
    data = _data([10, 20], sample_rate_hz=1000)
    test = dataclasses.replace(data.test, groups={"seconds": data.test.targets})
    with pytest.raises(DataError, match="the dataset has a group named 'seconds'"):
        Speech().prepare(dataclasses.replace(data, test=test), SpeechOptions())


def test_a_dataset_without_a_sample_rate_is_rejected() -> None:
    with pytest.raises(DataError, match="sample_rate_hz"):
        Speech().prepare(_data([100]), SpeechOptions())


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_clip_is_at_most_an_hour_long(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0 and at most 3600"):
        SpeechOptions(seconds=seconds)


def test_each_waveform_is_resampled_from_its_own_rate() -> None:
    time_s = np.arange(8000) / 16000
    waveforms = np.empty(2, object)
    waveforms[0] = np.sin(2 * np.pi * 300 * time_s).astype(np.float32)
    waveforms[1] = waveforms[0][::2].copy()  # the same sound at half the rate
    rates = np.array([16000, 8000])
    split = Split(inputs={"waveform": waveforms, "sample_rate_hz": rates}, targets=np.array([0, 1]))
    data = RawData(train=split, validation=split, test=split, label_names=("no", "yes"))
    prepared = Speech().prepare(data, SpeechOptions())
    assert prepared.info.details["sample_rate_hz"] == 8000
    first, second = prepared.train.inputs["input_values"]
    assert first.shape == (4000,)
    np.testing.assert_allclose(first[100:-100], second[100:-100], atol=0.05)
    faster = Speech().prepare(data, SpeechOptions(sample_rate_hz=12000))
    assert faster.info.inputs == {"input_values": InputSpec(shape=(6000,), dtype="float32")}
    assert faster.info.details["sample_rate_hz"] == 12000


def test_rates_above_16_khz_are_kept_on_request_only() -> None:
    split = _split([4410, 4410], 0)
    data = RawData(
        train=split, validation=split, test=split, label_names=("no", "yes"), details={"sample_rate_hz": 44100}
    )
    assert Speech().prepare(data, SpeechOptions()).info.inputs["input_values"].shape == (1600,)
    assert Speech().prepare(data, SpeechOptions(sample_rate_hz=44100)).info.inputs["input_values"].shape == (4410,)

"""Tests of random shifts and noise, which apply to training batches only and do not depend on the backend."""

from __future__ import annotations

import numpy as np
import pytest
from harness_speech.task import Speech, SpeechOptions
from harness_speech.waveforms import fixed_length, shifted, with_noise
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate

from harness import DataInfo, InputSpec, Split
from harness.data.batches import training_batches

TASK = Speech()
RATE_HZ = 1000
OPTIONS = st.builds(
    SpeechOptions, shift_ms=st.sampled_from([0.0, 0.4, 7.0, 5000.0]), noise_snr_db=st.sampled_from([None, -10.0, 20.0])
)


def info(samples: int) -> DataInfo:
    return DataInfo(
        kind="waveform",
        inputs={"input_values": InputSpec(shape=(samples,), dtype="float32")},
        objective="classification",
        outputs=2,
        details={"sample_rate_hz": RATE_HZ},
    )


def clips(lengths: list[int], samples: int, seed: int = 0) -> np.ndarray:
    """Return random clips, normalized and padded as by the task."""
    rng = np.random.default_rng(seed)
    return fixed_length([rng.uniform(-1, 1, length).astype(np.float32) for length in lengths], samples)


def augmented(rows: np.ndarray, options: SpeechOptions, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return TASK.augment({"input_values": rows.copy()}, info(rows.shape[1]), options, rng)["input_values"]


def test_augmentation_is_off_by_default() -> None:
    rows = clips([10, 30, 50], 40)
    assert np.array_equal(augmented(rows, SpeechOptions()), rows)
    assert np.array_equal(augmented(rows, SpeechOptions(shift_ms=0.4)), rows)  # less than one sample


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(1, 60), OPTIONS, st.integers(0, 9))
def test_augmentation_keeps_shape_and_dtype_and_stays_finite(
    lengths: list[int], samples: int, options: SpeechOptions, seed: int
) -> None:
    rows = clips(lengths, samples)
    changed = augmented(rows, options, seed)
    assert (changed.shape, changed.dtype) == (rows.shape, np.float32)
    assert np.isfinite(changed).all()
    assert np.array_equal(changed, augmented(rows, options, seed))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=6))
def test_a_shift_moves_the_clip_and_fills_with_zeros(later: list[int]) -> None:
    rows = clips([40] * len(later), 40)
    for row, new, step in zip(rows, shifted(rows, np.array(later)), later, strict=True):
        expected = np.zeros_like(row)
        for place in range(40):
            if 0 <= place - step < 40:
                expected[place] = row[place - step]
        assert np.array_equal(new, expected)


def test_shifts_cover_the_whole_range_in_both_directions() -> None:
    rows = np.zeros((2000, 41), np.float32)
    rows[:, 20] = 1
    steps = augmented(rows, SpeechOptions(shift_ms=5)).argmax(axis=1) - 20
    assert set(steps.tolist()) == set(range(-5, 6))


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_noise_has_the_requested_ratio_and_leaves_the_padding(snr_db: float, scale: float) -> None:
    lengths = [16_000, 4_000, 9_000]
    rows = clips(lengths, 16_000) * np.float32(scale)
    noisy = augmented(rows, SpeechOptions(noise_snr_db=snr_db))
    for row, new, length in zip(rows.astype(np.float64), noisy, lengths, strict=True):
        noise = new - row
        assert not noise[length:].any()
        found = 10 * np.log10(np.mean(row[:length] ** 2) / np.mean(noise[:length] ** 2))
        assert found == pytest.approx(snr_db, abs=0.4)  # four standard errors of the power of 4,000 samples
        white = correlate(noise[:length], noise[:length], method="fft")[length - 1 :] / np.sum(noise[:length] ** 2)
        assert np.abs(white[1:100]).max() < 5 / np.sqrt(length)


def test_a_silent_clip_stays_silent() -> None:
    rows = np.zeros((2, 30), np.float32)
    assert not with_noise(rows, 0.0, np.random.default_rng(0)).any()


def test_an_epochs_batches_depend_on_seed_and_epoch_only() -> None:
    rows = clips([20, 40] * 10, 40)
    split = Split(inputs={"input_values": rows.copy()}, targets=np.arange(20))
    options = SpeechOptions(shift_ms=9, noise_snr_db=10)

    def epoch(seed: int, number: int) -> list[np.ndarray]:
        batches = training_batches(split, 8, seed, number, lambda i, rng: TASK.augment(i, info(40), options, rng))
        return [batch.inputs["input_values"] for batch in batches]

    first, again, later, other = epoch(0, 1), epoch(0, 1), epoch(0, 2), epoch(1, 1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], later[0])
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(split.inputs["input_values"], rows)  # the split is unchanged


@pytest.mark.parametrize(
    "wrong", [{"shift_ms": -1.0}, {"shift_ms": float("nan")}, {"noise_snr_db": 300.0}, {"noise_snr_db": float("nan")}]
)
def test_invalid_options_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpeechOptions(**wrong)

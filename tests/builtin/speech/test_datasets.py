"""Tests of the standard speech datasets, on small generated files and on the downloaded files if present."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from harness_speech.datasets import fsdd, speech_commands
from harness_speech.datasets.wav import read_pcm16
from real_files import load_real

from harness import DataError


def write_wav(path: Path, samples: list[int] | np.ndarray, rate_hz: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def test_read_pcm16_scales_to_minus_one_to_one_and_rejects_other_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [0, 16384, -32768], 8000)
    samples = read_pcm16(tmp_path / "a.wav", 8000)
    assert samples.dtype == np.float32
    assert samples.tolist() == [0.0, 0.5, -1.0]
    with pytest.raises(DataError, match="at 8000 Hz; expected 1 channel with 2 bytes per sample at 16000 Hz"):
        read_pcm16(tmp_path / "a.wav", 16000)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav"):
        read_pcm16(tmp_path / "b.wav", 8000)


def test_fsdd_splits_by_recording_number(tmp_path: Path) -> None:
    for digit in (0, 7):
        for number in (0, 4, 5, 9, 10, 49):
            write_wav(tmp_path / "fsdd-1" / "recordings" / f"{digit}_theo_{number}.wav", [digit, number], 8000)
    data = fsdd.read(tmp_path)
    for split, numbers in ((data.test, {0, 4}), (data.validation, {5, 9}), (data.train, {10, 49})):
        assert {round(float(samples[1]) * 32768) for samples in split.inputs["waveform"]} == numbers
        assert sorted(split.targets) == [0, 0, 7, 7]
        assert set(split.groups["speaker"]) == {"theo"}
    assert data.details["sample_rate_hz"] == 8000
    assert (data.label_names[0], data.label_names[7]) == ("zero", "seven")


def test_fsdd_as_published(real_data: None) -> None:
    data = load_real(fsdd.Fsdd())
    for split, each in ((data.train, 40), (data.validation, 5), (data.test, 5)):
        pairs, counts = np.unique(
            np.stack([split.targets.astype(str), split.groups["speaker"]]), axis=1, return_counts=True
        )
        assert pairs.shape == (2, 60)  # ten digits and six speakers
        assert set(counts) == {each}
    assert data.label_names[7] == "seven"
    seconds = [len(samples) / 8000 for samples in data.train.inputs["waveform"]]
    assert 0.1 < min(seconds) < max(seconds) < 2.5


WORDS = (*speech_commands.COMMANDS, "bed", "cat")


@pytest.fixture
def small_commands(tmp_path: Path) -> Path:
    """Write recordings of twelve words by 30 speakers, three each for validation and test; each word is a constant."""
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for value, word in enumerate(WORDS, 1):
        for speaker in range(30):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            write_wav(tmp_path / name, np.full(16000 - speaker, value), 16000)
            if speaker < 6:
                lists["validation_list.txt" if speaker < 3 else "testing_list.txt"].append(name)
    for name, lines in lists.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    write_wav(tmp_path / "_background_noise_" / "hum.wav", np.arange(16000 * 20) // 16000 * 100 + 1000, 16000)
    (tmp_path / "_background_noise_" / "README.md").write_text("noise")
    (tmp_path / "LICENSE").write_text("CC BY")
    return tmp_path


def test_speech_commands_35_uses_every_word_and_the_publishers_lists(small_commands: Path) -> None:
    data = speech_commands.read(small_commands, speech_commands.SpeechCommandsOptions())
    assert data.label_names == tuple(sorted(WORDS))
    assert (len(data.train), len(data.validation), len(data.test)) == (288, 36, 36)
    assert np.bincount(data.train.targets).tolist() == [24] * 12
    assert set(data.validation.groups["speaker"]) == {f"{speaker:08x}" for speaker in range(3)}
    assert set(data.test.groups["speaker"]) == {f"{speaker:08x}" for speaker in range(3, 6)}
    for split in (data.train, data.validation, data.test):
        for samples, target in zip(split.inputs["waveform"], split.targets, strict=True):
            assert WORDS[round(float(samples[0]) * 32768) - 1] == data.label_names[target]


def test_speech_commands_12_adds_a_tenth_of_silence_and_unknown_words(small_commands: Path) -> None:
    data = speech_commands.read(small_commands, speech_commands.SpeechCommandsOptions(classes=12))
    assert data.label_names == ("_silence_", "_unknown_", *speech_commands.COMMANDS)
    noise: dict[str, set[int]] = {}
    for name, split, each, extra in (("train", data.train, 24, 24), ("test", data.test, 3, 3)):
        assert np.bincount(split.targets).tolist() == [extra, extra] + [each] * 10
        words = {
            WORDS[round(float(samples[0]) * 32768) - 1] for samples in split.inputs["waveform"][split.targets == 1]
        }
        assert words <= {"bed", "cat"}
        silence = list(split.inputs["waveform"][split.targets == 0])
        assert {len(samples) for samples in silence} == {16000}
        noise[name] = {round(float(value) * 32768) for samples in silence for value in samples[[0, -1]]}
    assert noise["train"]
    assert max(noise["train"]) < min(noise["test"])  # from separate parts of the recording
    again = speech_commands.read(small_commands, speech_commands.SpeechCommandsOptions(classes=12))
    same = zip(data.train.inputs["waveform"], again.train.inputs["waveform"], strict=True)
    assert all(np.array_equal(one, other) for one, other in same)


def test_speech_commands_with_a_missing_listed_file_raises(small_commands: Path) -> None:
    (small_commands / "yes" / "00000000_nohash_0.wav").unlink()
    with pytest.raises(DataError, match=r"validation_list.txt lists yes/00000000_nohash_0.wav"):
        speech_commands.read(small_commands, speech_commands.SpeechCommandsOptions())


RECORDINGS = (
    *(1_664, 2_014, 2_064, 2_031, 2_128, 3_917, 3_787, 4_052, 1_579, 1_557, 3_728, 3_880, 2_054, 2_113, 1_575),
    *(3_801, 2_100, 3_934, 3_941, 3_745, 3_845, 3_890, 3_778, 3_998, 2_022, 3_860, 3_872, 3_727, 1_759, 3_880),
    *(3_723, 1_592, 2_123, 4_044, 4_052),
)
"""Number of recordings of each word, from backward to zero (Warden 2018)."""


@pytest.mark.slow
def test_speech_commands_as_published(real_data: None) -> None:
    data = load_real(speech_commands.SpeechCommands())
    assert (len(data.train), len(data.validation), len(data.test)) == (84_843, 9_981, 11_005)
    counts = sum(np.bincount(split.targets) for split in (data.train, data.validation, data.test))
    assert counts.tolist() == list(RECORDINGS)
    assert not set(data.train.groups["speaker"]) & set(data.test.groups["speaker"])

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import pytest
from harness_speech import espeak
from harness_speech.espeak_digits import (
    DIGITS,
    EXCLUDED,
    SPLITS,
    EspeakDigits,
    EspeakDigitsOptions,
    split_of,
    utterances,
)

from harness import DataError, RawData, Split

DIGEST = """
import hashlib
from harness_speech.espeak_digits import SPLITS, EspeakDigits, EspeakDigitsOptions
data = EspeakDigits().load(EspeakDigitsOptions(takes=1))
sha = hashlib.sha256()
for split in SPLITS:
    for waveform in getattr(data, split).inputs["waveform"]:
        sha.update(waveform.tobytes())
print(sha.hexdigest())
"""


@pytest.fixture(scope="module")
def data() -> RawData:
    pytest.importorskip("espeakng_loader")
    return EspeakDigits().load(EspeakDigitsOptions())


@pytest.fixture(scope="module")
def one_take() -> RawData:
    pytest.importorskip("espeakng_loader")
    return EspeakDigits().load(EspeakDigitsOptions(takes=1))


def _splits(data: RawData) -> list[Split]:
    return [getattr(data, name) for name in SPLITS]


def _digest(data: RawData) -> str:
    sha = hashlib.sha256()
    for split in _splits(data):
        for waveform in split.inputs["waveform"]:
            sha.update(waveform.tobytes())
    return sha.hexdigest()


def test_every_voice_says_every_digit_equally_often(data: RawData) -> None:
    assert data.label_names == DIGITS
    assert data.details == {"sample_rate_hz": 8000}
    for split in _splits(data):
        voices = set(split.groups["voice"])
        counts = Counter(zip(split.groups["voice"], split.targets, strict=True))
        assert len(voices) >= 12
        assert counts == {(voice, digit): EspeakDigitsOptions().takes for voice in voices for digit in range(10)}
        assert split.targets.dtype == np.int64


def test_no_voice_is_in_two_splits(data: RawData) -> None:
    voices = [{str(name) for name in split.groups["voice"]} for split in _splits(data)]
    assert not any(one & other for one, other in combinations(voices, 2))
    everyone = set().union(*voices)
    assert everyone == set(espeak.variants()) - set(EXCLUDED)
    assert len(everyone) >= 90


def test_voices_that_differ_by_a_number_are_in_the_same_split() -> None:
    assert len({split_of(f"klatt{number}") for number in ("", 2, 3, 4, 5, 6)}) == 1
    assert {split_of(str(number) + "x") for number in range(200)} == set(SPLITS)


def test_clips_are_audible_speech_of_plausible_length(data: RawData) -> None:
    for split in _splits(data):
        for waveform in split.inputs["waveform"]:
            assert waveform.dtype == np.float32
            assert 0.1 < len(waveform) / 8000 < 2
            assert 0.02 < np.abs(waveform).max() <= 1
            assert np.sqrt(np.mean(waveform**2)) > 0.005


def test_digits_languages_rates_and_pitches_differ(one_take: RawData) -> None:
    for split in _splits(one_take):
        for voice in set(split.groups["voice"]):
            clips = split.inputs["waveform"][split.groups["voice"] == voice]
            assert len({clip.tobytes() for clip in clips}) == 10
    spoken = utterances(["f1"], takes=40)
    assert len({utterance.language for utterance in spoken}) == 7
    assert len({utterance.rate_wpm for utterance in spoken}) > 60
    assert len({utterance.pitch for utterance in spoken}) > 30


def test_voices_with_the_same_formants_are_in_the_same_split() -> None:
    loader = pytest.importorskip("espeakng_loader")
    splits: dict[tuple[str, ...], set[str]] = {}
    for voice in set(espeak.variants()) - set(EXCLUDED):
        text = (Path(loader.get_data_path()) / "voices" / "!v" / voice).read_text(errors="replace")
        formants = sorted(" ".join(line.split()) for line in text.splitlines() if line.strip().startswith("formant"))
        splits.setdefault(tuple(formants), set()).add(split_of(voice))
    assert len(splits) > 60
    assert all(len(found) == 1 for found in splits.values()), splits


def test_every_voice_differs_from_the_fallback_voice() -> None:
    """Check that no voice falls back to the default voice, which espeak-ng uses for unknown variants without an error.

    Repeated recordings of a voice differ slightly, so the distance to another voice must exceed these differences.
    """
    pytest.importorskip("espeakng_loader")
    voices = [voice for voice in espeak.variants() if voice not in EXCLUDED]
    names = [*voices, *["no-such-variant"] * 3]
    spectra = []
    for samples in espeak.synthesize([espeak.Utterance("nine", "en-us", name, 175, 50) for name in names]):
        power = np.abs(np.fft.rfft(samples / 32768, 32768)[:16384]) ** 2
        spectra.append(np.log(power.reshape(256, 64).sum(1) + 1e-6))
    *others, one, two, three = spectra
    noise = max(np.abs(one - two).mean(), np.abs(two - three).mean(), np.abs(one - three).mean())
    distances = {voice: float(np.abs(bands - one).mean()) for voice, bands in zip(voices, others, strict=True)}
    assert {voice: distance for voice, distance in distances.items() if distance <= noise} == {}


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_speech_has_the_same_duration_at_each_rate(rate_hz: int) -> None:
    pytest.importorskip("espeakng_loader")
    data = EspeakDigits().load(EspeakDigitsOptions(takes=1, sample_rate_hz=rate_hz))
    assert data.details == {"sample_rate_hz": rate_hz}
    spoken = espeak.synthesize(utterances([v for v in espeak.variants() if v not in EXCLUDED], 1))
    seconds = sum(map(len, spoken)) / espeak.SAMPLE_RATE_HZ
    found = sum(len(waveform) for split in _splits(data) for waveform in split.inputs["waveform"]) / rate_hz
    assert found == pytest.approx(seconds, rel=1e-3)


def test_synthesis_is_deterministic_within_and_across_processes(one_take: RawData) -> None:
    again = EspeakDigits().load(EspeakDigitsOptions(takes=1))
    child = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert _digest(again) == _digest(one_take)
    assert child.stdout == _digest(one_take) + "\n"
    assert child.stderr == ""


def test_synthesis_changes_neither_working_directory_nor_output(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("espeakng_loader")
    before = Path.cwd()
    assert len(espeak.synthesize([espeak.Utterance("two", "en-us", "f1", 175, 50)])) == 1
    assert Path.cwd() == before
    assert capfd.readouterr() == ("", "")


def test_synthesis_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", None)
    assert len(espeak.synthesize([espeak.Utterance("two", "en-us", "f1", 175, 50)])) == 1
    assert list(tmp_path.iterdir()) == []


def test_synthesis_after_the_c_library_drew_random_numbers_is_the_same() -> None:
    """Check that the C library's random numbers, which espeak-ng also uses, are seeded."""
    pytest.importorskip("espeakng_loader")
    spoken = utterances(["f1", "whisper", "croak"], 1)
    first = espeak.synthesize(spoken)
    for _ in range(100):
        ctypes.CDLL(None).rand()
    assert all(map(np.array_equal, first, espeak.synthesize(spoken)))


def test_synthesis_works_from_a_long_installation_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the workaround for espeak-ng, which fails if the path of its data exceeds about 160 characters."""
    loader = pytest.importorskip("espeakng_loader")
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    (folder / "espeakng_loader").symlink_to(Path(loader.__file__).parent)
    monkeypatch.setattr(loader, "get_data_path", lambda: str(folder / "espeakng_loader" / "espeak-ng-data"))
    near = espeak.synthesize([espeak.Utterance("two", "en-us", "f1", 175, 50)])
    assert len(near) == 1
    assert len(near[0]) > 1000


def test_a_missing_loader_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EspeakDigits.requires == {"espeakng_loader": "ml-harness[speech]"}
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match="pip install espeakng-loader"):
        EspeakDigits().load(EspeakDigitsOptions())


def test_an_unknown_language_raises() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(DataError, match="status 2 for Utterance"):
        espeak.synthesize([espeak.Utterance("two", "no-such-language", "f1", 175, 50)])


@pytest.mark.parametrize("options", [{"takes": 0}, {"sample_rate_hz": 100}, {"voices": 3}])
def test_invalid_options_are_rejected(options: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, EspeakDigitsOptions)

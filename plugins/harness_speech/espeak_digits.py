"""The ``espeak-digits`` dataset: spoken digits, synthesized by espeak-ng, split by voice."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct

from harness import Dataset, RawData, RawInput, Split

from . import espeak

if TYPE_CHECKING:
    from collections.abc import Iterable

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LANGUAGES = ("en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us")
"""British, Caribbean, Scottish, Lancastrian, West Midlands, Received Pronunciation and American English."""
SPLITS = ("train", "validation", "test")
EXCLUDED = ("fast",)
"""Variants that do not count as separate voices. ``fast`` is espeak-ng's default voice at a very high speed."""
_RELATIVES = {
    **dict.fromkeys(("diogo", "hugo", "michel", "miguel"), "henrique"),
    **dict.fromkeys(("m", "max", "ricishaymax"), "robosoft"),
    "anikarobot": "anika",
    "caleb": "klatt",
}
"""Voices that have the same formants (vocal tract) as another voice, and differ from it only in pitch, echo or
timbre."""


class EspeakDigitsOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``espeak-digits`` dataset."""

    takes: int = 4
    """Number of recordings of each digit by each voice. Language, rate and pitch vary between recordings."""
    sample_rate_hz: int = 8000
    """Sample rate of the waveforms in Hz, from 4000 to 22050."""

    def __post_init__(self) -> None:
        if self.takes < 1:
            raise ValueError("takes must be at least 1")
        if not 4000 <= self.sample_rate_hz <= espeak.SAMPLE_RATE_HZ:
            raise ValueError(f"sample_rate_hz must be between 4000 and {espeak.SAMPLE_RATE_HZ}")


def _number(*key: object) -> int:
    """Return a 32-bit hash of `key` that is uniformly distributed and the same in every process."""
    text = "\0".join(map(str, key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def split_of(voice: str) -> str:
    """Return the split of a voice. About 70% of the voices are in the training split, 15% in the validation split and
    15% in the test split.

    Related voices are always in the same split. Voices are related if they have the same formants, or if their names
    differ only in a number.
    """
    design = voice.lower().rstrip("0123456789")
    percentile = _number("split", _RELATIVES.get(design, design)) % 100
    return SPLITS[(percentile >= 70) + (percentile >= 85)]


def utterances(voices: Iterable[str], takes: int) -> list[espeak.Utterance]:
    """Return `takes` utterances of each digit by each voice.

    Rates range from 130 to 219 words per minute, and pitches from 30 to 69.
    """
    return [
        espeak.Utterance(
            text=digit,
            language=LANGUAGES[_number("language", voice, digit, take) % len(LANGUAGES)],
            variant=voice,
            rate_wpm=130 + _number("rate", voice, digit, take) % 90,
            pitch=30 + _number("pitch", voice, digit, take) % 40,
        )
        for voice in voices
        for digit in DIGITS
        for take in range(takes)
    ]


class EspeakDigits(Dataset[EspeakDigitsOptions]):
    """Digits spoken by about 100 synthetic voices: women, men, children, robots and whispering voices.

    Each voice is a voice variant of espeak-ng. No voice is in more than one split, so the test score measures
    generalization to new voices. Nothing is downloaded or stored: synthesis takes seconds and produces the same samples
    each time.

    Inputs: ``waveform``, float32 ``[samples]`` in [-1, 1] for each example. Targets: 0 to 9. Groups: ``voice`` and
    ``language``.
    """

    name = "espeak-digits"
    kind = "audio"
    objective = "classification"
    summary = "digits spoken by about 100 synthetic English voices, split by voice"
    license = "synthesized locally; espeak-ng's license (GPL-3.0-or-later) does not apply to its output"
    homepage = "https://github.com/espeak-ng/espeak-ng"
    citation = "espeak-ng, synthesized with the voices of the installed espeakng-loader"
    notes = (
        "This dataset was created for harness, so there are no published results. The numbers of examples refer to "
        "espeakng-loader 0.2.4."
    )
    examples = {"train": 2_880, "validation": 600, "test": 640}
    inputs = {"waveform": RawInput(shape=(None,), dtype="float32")}
    label_names = DIGITS
    metric = "accuracy"
    target = 0.9
    Options = EspeakDigitsOptions
    recipes = {"wav2vec2-tiny": {"epochs": 7, "learning_rate": 2e-3, "dropout": 0.1}}
    requires = espeak.REQUIRES

    def load(self, options: EspeakDigitsOptions) -> RawData:
        """Synthesize the digits. Raises `harness.DataError` if espeak-ng is missing or fails."""
        import numpy as np

        from .waveforms import resample

        voices = [voice for voice in espeak.variants() if voice not in EXCLUDED]
        spoken = utterances(voices, options.takes)
        waveforms = np.empty(len(spoken), object)
        for number, samples in enumerate(espeak.synthesize(spoken)):
            resampled = resample(samples / 32768, espeak.SAMPLE_RATE_HZ, options.sample_rate_hz)
            waveforms[number] = resampled.clip(-1, 1)
        everything = Split(
            inputs={"waveform": waveforms},
            targets=np.array([DIGITS.index(utterance.text) for utterance in spoken], np.int64),
            groups={
                "voice": np.array([utterance.variant for utterance in spoken]),
                "language": np.array([utterance.language for utterance in spoken]),
            },
        )
        splits = np.array([split_of(utterance.variant) for utterance in spoken])
        train, validation, test = (everything.take(np.flatnonzero(splits == split)) for split in SPLITS)
        return RawData(
            train=train,
            validation=validation,
            test=test,
            label_names=DIGITS,
            details={"sample_rate_hz": options.sample_rate_hz},
        )

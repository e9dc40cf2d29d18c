"""The ``speech-commands`` dataset: one-second recordings of single words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from harness import DataError, Dataset, RawData, RawInput, RemoteFile, Split, installed

from .wav import read_pcm16

if TYPE_CHECKING:
    import numpy as np

RATE_HZ = 16000
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)
SILENCE, UNKNOWN = "_silence_", "_unknown_"
NOISE = "_background_noise_"
EXTRA_SHARE = 0.1
"""Number of silence examples, and number of unknown words, as fractions of the number of command examples."""
SPLITS = ("train", "validation", "test")
_NOISE_SHARE = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


class SpeechCommandsOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``speech-commands`` dataset."""

    classes: Literal[12, 35] = 35
    """Number of classes: 35 (every word is a class) or 12 (ten commands, silence and unknown words)."""


class SpeechCommands(Dataset[SpeechCommandsOptions]):
    """Speech Commands v0.02: 105,829 recordings of 35 words by 2,618 speakers, sampled at 16 kHz. Each recording is at
    most one second long.

    The publisher's lists ``validation_list.txt`` (9,981) and ``testing_list.txt`` (11,005) define the splits. The other
    84,843 recordings form the training split. No speaker is in more than one split.

    - ``classes=35``: every word is a class.
    - ``classes=12``: ten commands, ``_silence_`` and ``_unknown_``. These classes are used in section 7 of the paper
      and in its training code (``input_data.py``). The number of silence examples is a tenth of the number of command
      examples. Silence examples are one-second segments at random positions in the background recordings. Each split
      uses a different part of the background recordings. The number of unknown words is the same as the number of
      silence examples. Unknown words are drawn at random from the recordings of the other 25 words. The test split has
      4,074 commands, 408 silence examples and 408 unknown words. The publisher's test archive has the same number of
      examples per class, but different random examples.

    Inputs: ``waveform``, float32 ``[samples]`` in [-1, 1] for each example. Groups: ``speaker``, empty for silence.
    Published results usually report accuracy. Preparing all recordings requires 6.8 GB of memory.

    **The full download has not been tested.** The publisher's ``README.md`` documents the format. The archive contains
    one folder per word with files ``<speaker>_nohash_<number>.wav``. The archive also contains the publisher's two
    lists and the background recordings (``_background_noise_/*.wav``, about one minute each). The URL, size and SHA-256
    come from TensorFlow Datasets (``url_checksums/speech_commands.txt``).
    """

    name = "speech-commands"
    kind = "audio"
    objective = "classification"
    summary = "105,829 spoken words, 16 kHz, 35 or 12 classes (Speech Commands v0.02)"
    license = "CC BY 4.0"
    homepage = "https://arxiv.org/abs/1804.03209"
    citation = "Warden 2018, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv:1804.03209"
    notes = (
        "Implemented from the publisher's documented format; the full download has not been tested. "
        "Use --set dataset.classes=12 for ten commands, _silence_ and _unknown_."
    )
    examples = {"train": 84_843, "validation": 9_981, "test": 11_005}
    inputs = {"waveform": RawInput(shape=(None,), dtype="float32")}
    label_names = WORDS
    metric = "accuracy"
    Options = SpeechCommandsOptions
    files = (
        RemoteFile(
            url="http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            alternates=("https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",),
            sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            bytes=2_428_923_189,
            extract=True,
        ),
    )

    def load(self, options: SpeechCommandsOptions) -> RawData:
        return read(installed(self), options)


def read(folder: Path, options: SpeechCommandsOptions) -> RawData:
    """Read the splits from the extracted archive in `folder`."""
    words = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != NOISE)
    recordings = _by_split(folder, words)
    if options.classes == 35:
        labels = tuple(words)
        splits = {
            name: _load(folder, members, [word for word, _ in members], labels) for name, members in recordings.items()
        }
    else:
        labels = (SILENCE, UNKNOWN, *COMMANDS)
        splits = {name: _twelve(folder, name, members, labels) for name, members in recordings.items()}
    return RawData(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        label_names=labels,
        details={"sample_rate_hz": RATE_HZ},
    )


Recording = tuple[str, str]
"""Word and file name."""


def _by_split(folder: Path, words: list[str]) -> dict[str, list[Recording]]:
    listed: dict[Recording, str] = {}
    for split, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        for line in (folder / name).read_text(encoding="utf-8").split():
            word, _, file = line.partition("/")
            if not (folder / word / file).is_file():
                raise DataError(f"{folder / name} lists {line}, but the file is missing")
            listed[word, file] = split
    recordings = [(word, path.name) for word in words for path in sorted((folder / word).glob("*.wav"))]
    by_split: dict[str, list[Recording]] = {name: [] for name in SPLITS}
    for recording in recordings:
        by_split[listed.get(recording, "train")].append(recording)
    return by_split


def _load(folder: Path, recordings: list[Recording], labels: list[str], names: tuple[str, ...]) -> Split:
    import numpy as np

    waveforms = np.empty(len(recordings), object)
    for number, (word, file) in enumerate(recordings):
        waveforms[number] = read_pcm16(folder / word / file, RATE_HZ)
    return Split(
        inputs={"waveform": waveforms},
        targets=np.array([names.index(label) for label in labels], np.int64),
        groups={"speaker": np.array([file.partition("_nohash_")[0] for _, file in recordings], dtype=str)},
    )


def _twelve(folder: Path, split: str, recordings: list[Recording], names: tuple[str, ...]) -> Split:
    import numpy as np

    rng = np.random.default_rng(SPLITS.index(split))
    commands = [recording for recording in recordings if recording[0] in COMMANDS]
    others = [recording for recording in recordings if recording[0] not in COMMANDS]
    extra = math.ceil(EXTRA_SHARE * len(commands))
    drawn = rng.choice(len(others), min(extra, len(others)), replace=False)
    unknown = [others[number] for number in sorted(drawn)]
    spoken = _load(folder, commands + unknown, [word for word, _ in commands] + [UNKNOWN] * len(unknown), names)
    silence = np.empty(extra, object)
    silence[:] = _silence(folder / NOISE, extra, _NOISE_SHARE[split], rng)
    return Split(
        inputs={"waveform": np.concatenate([spoken.inputs["waveform"], silence])},
        targets=np.concatenate([spoken.targets, np.full(extra, names.index(SILENCE))]),
        groups={"speaker": np.concatenate([spoken.groups["speaker"], np.full(extra, "")])},
    )


def _silence(folder: Path, count: int, share: tuple[float, float], rng: np.random.Generator) -> list[Any]:
    """Return `count` one-second segments of the background recordings.

    The segments are drawn from one part of each recording. `share` gives the start and end of this part, as fractions
    of the recording's length.
    """
    parts = []
    for path in sorted(folder.glob("*.wav")):
        samples = read_pcm16(path, RATE_HZ)
        part = samples[int(share[0] * len(samples)) : int(share[1] * len(samples))]
        if len(part) >= RATE_HZ:
            parts.append(part)
    if not parts:
        raise DataError(f"{folder} has no wav file of at least ten seconds")
    pieces = []
    for _ in range(count):
        part = parts[rng.integers(len(parts))]
        start = rng.integers(len(part) - RATE_HZ + 1)
        pieces.append(part[start : start + RATE_HZ].copy())
    return pieces

"""The ``fsdd`` dataset: the Free Spoken Digit Dataset."""

from __future__ import annotations

from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RawInput, RemoteFile, Split, installed

from .wav import read_pcm16

RATE_HZ = 8000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"


class Fsdd(Dataset):
    """3,000 recordings at 8 kHz. Each of the six speakers says every English digit 50 times.

    In the publisher's split, recordings 0 to 4 of each digit by each speaker form the test split (300). In this
    dataset, recordings 5 to 9 of each digit by each speaker form the validation split (300), and the remaining 2,400
    recordings form the training split. Every speaker is in every split, so scores do not measure generalization to new
    speakers.

    Inputs: ``waveform``, float32 ``[samples]`` in [-1, 1] for each example, 0.14 to 2.3 s long. Targets: 0 to 9.
    Groups: ``speaker``. Published results usually report accuracy.
    """

    name = "fsdd"
    kind = "audio"
    objective = "classification"
    summary = "3,000 digits spoken by six speakers, 8 kHz (Free Spoken Digit Dataset)"
    license = "CC BY-SA 4.0"
    homepage = "https://github.com/Jakobovski/free-spoken-digit-dataset"
    citation = "Jackson et al. 2018, Jakobovski/free-spoken-digit-dataset v1.0.8, doi:10.5281/zenodo.1342401"
    recipes = {"wav2vec2-tiny": {"epochs": 40, "learning_rate": 2e-3, "dropout": 0.1}}
    task_options = {"speech": {"shift_ms": 20.0}}
    notes = "In the official split, every speaker is in both the training and the test split."
    examples = {"train": 2_400, "validation": 300, "test": 300}
    inputs = {"waveform": RawInput(shape=(None,), dtype="float32")}
    label_names = DIGITS
    metric = "accuracy"
    target = 0.95
    files = (
        RemoteFile(
            url=f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.tar.gz",
            bytes=15_568_358,
            members={
                f"free-spoken-digit-dataset-{_COMMIT}/recordings/*.wav": (
                    "b736a60900156ad58d3b4e6e096c0546256603e3a08ba33ace15186f181a28bf"
                )
            },
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from the files ``*/recordings/{digit}_{speaker}_{number}.wav`` in `folder`."""
    import numpy as np

    paths = sorted(folder.glob("*/recordings/*.wav"))
    if not paths:
        raise DataError(f"{folder} has no files */recordings/*.wav")
    names = [path.stem.split("_") for path in paths]
    numbers = np.array([int(number) for _, _, number in names])
    waveforms = np.empty(len(paths), object)
    waveforms[:] = [read_pcm16(path, RATE_HZ) for path in paths]
    everything = Split(
        inputs={"waveform": waveforms},
        targets=np.array([int(digit) for digit, _, _ in names], np.int64),
        groups={"speaker": np.array([speaker for _, speaker, _ in names])},
    )
    return RawData(
        train=everything.take(np.flatnonzero(numbers >= 10)),
        validation=everything.take(np.flatnonzero((numbers >= 5) & (numbers < 10))),
        test=everything.take(np.flatnonzero(numbers < 5)),
        label_names=DIGITS,
        details={"sample_rate_hz": RATE_HZ},
    )

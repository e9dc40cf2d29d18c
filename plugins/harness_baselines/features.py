"""Feature extraction, which converts prepared inputs, a dict of arrays ``[N, ...]``, to the input of an estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from harness import DataInfo, TableColumns

Inputs = Mapping[str, NDArray[Any]]


def nothing(inputs: Inputs) -> NDArray[np.float32]:
    """Return an array of zeros, ``[N, 1]``, for estimators that ignore their input."""
    return np.zeros((len(next(iter(inputs.values()))), 1), np.float32)


def flat(inputs: Inputs) -> NDArray[np.float32]:
    """Return the single input array, flattened to ``[N, F]``."""
    (array,) = inputs.values()
    return array.reshape(len(array), -1)


MAX_CATEGORIES = 255
"""scikit-learn's gradient boosting supports native categorical splits for columns with at most this number of
categories."""


@dataclass(frozen=True)
class NativeColumns:
    """Original columns of a table, restored from the encoded columns.

    Missing numbers, which have an indicator of 1, are restored as NaN. The value of a categorical column is a category
    number, or NaN if the category does not occur in the training split. A column with more than `MAX_CATEGORIES`
    categories remains one-hot encoded.
    """

    columns: TableColumns
    """Layout of the encoded columns."""

    @property
    def categorical(self) -> list[bool]:
        """True for each restored column that contains category numbers."""
        found = [False] * self.columns.numbers
        for size in self.columns.categories:
            found += [True] if size <= MAX_CATEGORIES else [False] * size
        return found

    def __call__(self, inputs: Inputs) -> NDArray[np.float32]:
        encoded, layout = flat(inputs), self.columns
        numbers = encoded[:, : layout.numbers].copy()
        start = layout.numbers + len(layout.indicators)
        for indicator, number in enumerate(layout.indicators):
            numbers[encoded[:, layout.numbers + indicator] == 1, number] = np.nan
        restored = [numbers]
        for size in layout.categories:
            cells = encoded[:, start : start + size]
            start += size
            if size <= MAX_CATEGORIES:
                cells = np.where(cells.any(axis=1), cells.argmax(axis=1), np.nan)[:, None].astype(np.float32)
            restored.append(cells)
        return np.concatenate(restored, axis=1)


def native(info: DataInfo) -> NativeColumns | None:
    """Return the columns of a table. Return None if the data do not come from a table with a known layout."""
    return None if info.columns is None else NativeColumns(info.columns)


def tokens(inputs: Inputs) -> list[list[int]]:
    """Return the token ids of each example, without padding."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"].astype(bool)
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]


@dataclass(frozen=True)
class Terms:
    """Analyzer that returns the token-id n-grams of an example."""

    ngrams: int
    """Maximum n-gram length, in tokens."""

    def __call__(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        return [
            tuple(ids[start : start + size])
            for size in range(1, self.ngrams + 1)
            for start in range(len(ids) - size + 1)
        ]


WINDOW_S, HOP_S = 0.025, 0.010
"""Frame length and hop, in seconds. Both values are commonly used in speech recognition."""


@dataclass(frozen=True)
class Mfcc:
    """Statistics of mel-frequency cepstral coefficients (MFCCs; Davis and Mermelstein 1980) of waveforms.

    The frames of a clip are divided into `parts` equal parts. The features are the mean and standard deviation of each
    coefficient within each part, ``[N, 2 * coefficients * parts]``.

    Frames are 25 ms long with a hop of 10 ms and a Hann window. Triangular filters are equally spaced on the mel scale,
    2595 log10(1 + f / 700), from 0 to half the sample rate. The logarithms of the filter energies are transformed with
    an orthonormal DCT-II. Zero padding at the end of a clip is ignored.
    """

    rate_hz: int
    """Sample rate in Hz."""
    coefficients: int
    """Number of coefficients per frame."""
    mel_bands: int
    """Number of mel filters."""
    parts: int
    """Number of parts into which each clip is divided."""

    def __call__(self, inputs: Inputs) -> NDArray[np.float32]:
        (clips,) = inputs.values()
        return np.stack([self._summary(np.trim_zeros(clip, "b")) for clip in clips])

    def _summary(self, clip: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = np.array_split(self.frames(clip), self.parts)
        empty = np.zeros((1, self.coefficients), np.float32)
        kept = [part if len(part) else empty for part in parts]
        return np.concatenate([number for part in kept for number in (part.mean(axis=0), part.std(axis=0))])

    def frames(self, clip: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the coefficients ``[frames, coefficients]`` of a clip ``[samples]``.

        A clip shorter than one frame is padded with zeros.
        """
        width, hop = round(WINDOW_S * self.rate_hz), round(HOP_S * self.rate_hz)
        clip = np.pad(clip, (0, max(0, width - len(clip))))
        frames = np.lib.stride_tricks.sliding_window_view(clip, width)[::hop]
        size = 1 << (width - 1).bit_length()
        power = np.abs(np.fft.rfft(frames * np.hanning(width), size)) ** 2 / size
        energies = np.log(power @ self._filters(size) + 1e-10)
        return np.asarray(dct(energies, type=2, norm="ortho", axis=1)[:, : self.coefficients], np.float32)

    def _filters(self, size: int) -> NDArray[np.float64]:
        """Return the weights of the mel filters, ``[size / 2 + 1, mel_bands]``."""
        highest = 2595 * np.log10(1 + self.rate_hz / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, highest, self.mel_bands + 2) / 2595) - 1)
        low, center, high = edges[:-2], edges[1:-1], edges[2:]
        bins = np.fft.rfftfreq(size, 1 / self.rate_hz)[:, None]
        rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
        return np.maximum(0, np.minimum(rising, falling))

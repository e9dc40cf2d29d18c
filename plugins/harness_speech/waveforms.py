"""Operations on single-channel waveforms, float32 ``[samples]``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Waveform = NDArray[np.float32]


@lru_cache(maxsize=8)
def _low_pass(rate: int) -> Any:
    """Return the default filter of ``scipy.signal.resample_poly``. The filter is cached, because designing it takes
    longer than applying it."""
    from scipy.signal import firwin

    return firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0))


def resample(waveform: NDArray[Any], from_hz: int, to_hz: int, most: int | None = None) -> Waveform:
    """Return `waveform` at a different sample rate, as float32, resampled with scipy's polyphase anti-aliasing
    filter.

    If `most` is given, only the first `most` samples of the result are computed. Without this limit, a short file with
    a low sample rate could become a waveform that does not fit into memory.
    """
    import math

    import numpy as np
    from scipy.signal import resample_poly

    if from_hz == to_hz:
        return np.asarray(waveform[:most], np.float32)
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    if most is not None:
        # The filter covers 10 * max(up, down) samples, at the rate `up * from_hz`, on each side of a sample.
        waveform = waveform[: (most * down + 10 * max(up, down)) // up + 2]
    resampled = resample_poly(np.asarray(waveform, np.float64), up, down, window=_low_pass(max(up, down)))
    return np.asarray(resampled[:most], np.float32)


def normalize(waveform: Waveform) -> Waveform:
    """Normalize to zero mean and unit variance, like the feature extractor of wav2vec 2.0.

    The formula is ``(x - mean) / sqrt(variance + 1e-7)``. A constant waveform is converted to zeros.
    """
    import numpy as np

    centered = np.asarray(waveform, np.float64)
    if centered.size == 0:
        return np.zeros(0, np.float32)
    centered = centered - centered.mean()
    return np.asarray(centered / np.sqrt(np.mean(centered**2) + 1e-7), np.float32)


def fixed_length(waveforms: Sequence[Waveform], samples: int, *, normalized: bool = True) -> NDArray[np.float32]:
    """Truncate each waveform to `samples`, normalize it if `normalized` is true, and pad it with zeros.

    Returns float32 ``[len(waveforms), samples]``.
    """
    import numpy as np

    matrix = np.zeros((len(waveforms), samples), np.float32)
    for row, waveform in zip(matrix, waveforms, strict=True):
        kept = waveform[:samples]
        row[: len(kept)] = normalize(kept) if normalized else kept
    return matrix


def with_noise(clips: NDArray[np.float32], snr_db: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add white Gaussian noise to `clips` ``[B, samples]``, at a signal-to-noise ratio of `snr_db` decibels.

    Zeros at the end of a clip are padding. The padding is excluded from the signal power, and no noise is added to it.
    A silent clip remains silent.
    """
    import numpy as np

    samples = clips.shape[1]
    length = samples - np.argmax(clips[:, ::-1] != 0, axis=1)
    power = np.sum(np.square(clips, dtype=np.float64), axis=1) / length
    level = np.sqrt(power / 10 ** (snr_db / 10)).astype(np.float32)
    noise: NDArray[np.float32] = rng.standard_normal(clips.shape, dtype=np.float32)
    noise *= level[:, None]
    noise[np.arange(samples) >= length[:, None]] = 0
    noise += clips
    return noise


def shifted(clips: NDArray[np.float32], later: NDArray[np.int64]) -> NDArray[np.float32]:
    """Delay each clip in `clips` ``[B, samples]`` by `later` ``[B]`` samples, and fill the gap with zeros. Negative
    values advance the clip.
    """
    import numpy as np

    # limit the shifts to the length of the clip, at which all samples are zeros
    later = later.clip(-clips.shape[1], clips.shape[1])
    margin = int(np.abs(later).max())
    framed = np.pad(clips, ((0, 0), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, clips.shape[1], axis=1)
    moved: NDArray[np.float32] = windows[np.arange(len(clips)), margin - later]
    return moved

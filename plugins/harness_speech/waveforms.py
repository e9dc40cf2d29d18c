"""Operations on waveforms: float32 ``[samples]``, one channel."""

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
    """The filter that ``scipy.signal.resample_poly`` designs by default, kept: its design costs more than its use."""
    from scipy.signal import firwin

    return firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0))


def resample(waveform: NDArray[Any], from_hz: int, to_hz: int) -> Waveform:
    """`waveform` at another sample rate, float32, through scipy's polyphase anti-aliasing filter."""
    import math

    import numpy as np
    from scipy.signal import resample_poly

    if from_hz == to_hz:
        return np.asarray(waveform, np.float32)
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    resampled = resample_poly(np.asarray(waveform, np.float64), up, down, window=_low_pass(max(up, down)))
    return np.asarray(resampled, np.float32)


def normalise(waveform: Waveform) -> Waveform:
    """Zero mean and unit variance, as wav2vec 2.0's feature extractor: ``(x - mean) / sqrt(variance + 1e-7)``.

    A constant waveform becomes zeros.
    """
    import numpy as np

    centred = np.asarray(waveform, np.float64)
    if centred.size == 0:
        return np.zeros(0, np.float32)
    centred = centred - centred.mean()
    return np.asarray(centred / np.sqrt(np.mean(centred**2) + 1e-7), np.float32)


def fixed_length(waveforms: Sequence[Waveform], samples: int) -> NDArray[np.float32]:
    """Float32 ``[len(waveforms), samples]``: each cut to its first `samples`, normalised, and padded with zeros."""
    import numpy as np

    matrix = np.zeros((len(waveforms), samples), np.float32)
    for row, waveform in zip(matrix, waveforms, strict=True):
        kept = normalise(waveform[:samples])
        row[: len(kept)] = kept
    return matrix

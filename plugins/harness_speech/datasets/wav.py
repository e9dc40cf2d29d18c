"""A WAV file reader based on the standard library."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING

from harness import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_pcm16(path: Path, rate_hz: int) -> NDArray[np.float32]:
    """Read the samples of a mono 16-bit PCM file, float32 ``[samples]`` in [-1, 1].

    Raises `harness.DataError` if the file has a different format or sample rate, or is corrupt.
    """
    import numpy as np

    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"cannot read {path} as a wav file: {error}") from error
    if form != (1, 2, rate_hz):
        raise DataError(
            f"{path} has {form[0]} channels with {form[1]} bytes per sample at {form[2]} Hz; "
            f"expected 1 channel with 2 bytes per sample at {rate_hz} Hz"
        )
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)

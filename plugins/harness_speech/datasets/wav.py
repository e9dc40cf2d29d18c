"""Reading wav files by the standard library."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING

from harness import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_pcm16(path: Path, rate_hz: int) -> NDArray[np.float32]:
    """The samples of a mono 16-bit PCM file, float32 ``[samples]`` in [-1, 1].

    Raises `harness.DataError` for another format or sample rate, and for a damaged file.
    """
    import numpy as np

    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path} is no readable wav file: {error}") from error
    if form != (1, 2, rate_hz):
        raise DataError(
            f"{path} has {form[0]} channels of {form[1]} bytes at {form[2]} Hz; expected 1, 2, {rate_hz} Hz"
        )
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)

"""Speech synthesis with the espeak-ng library.

espeak-ng keeps state between utterances, such as oscillator phases and the random numbers for breath noise. The state
of espeak-ng cannot be reset. In addition, espeak-ng seeds its random numbers from the clock. Therefore, each call to
`synthesize` loads a new copy of the library, with separate global variables. Each call also seeds both random number
generators that espeak-ng uses: its own generator and the C library's generator. As a result, the same sequence of
utterances always produces the same samples.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22050
"""Sample rate of espeak-ng's voices."""
REQUIRES = {"espeakng_loader": "ml-harness[speech]"}


class Utterance(NamedTuple):
    """Text to synthesize, with its language and voice settings."""

    text: str
    language: str
    """Name of a file in espeak-ng's ``lang`` folder, such as ``en-us``."""
    variant: str
    """Name of a file in espeak-ng's ``voices/!v`` folder, such as ``f1``."""
    rate_wpm: int
    """Speaking rate in words per minute. The default of espeak-ng is 175."""
    pitch: int
    """Pitch from 0 to 99. The default of espeak-ng is 50."""


def _data_folder() -> Path:
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError("speech synthesis needs espeak-ng; run: pip install espeakng-loader") from error
    return Path(espeakng_loader.get_data_path())


def variants() -> tuple[str, ...]:
    """Return the sorted names of the installed voice variants. Raises `harness.DataError` if no voice is installed."""
    folder = _data_folder() / "voices" / "!v"
    names = tuple(sorted(path.name for path in folder.glob("*") if path.is_file()))
    if not names:
        raise DataError(f"no espeak-ng voices in {folder}; reinstall espeakng-loader")
    return names


def synthesize(utterances: list[Utterance]) -> list[NDArray[np.int16]]:
    """Return the samples of each utterance in order, int16 ``[samples]`` at `SAMPLE_RATE_HZ`.

    Raises `harness.DataError` if espeak-ng is missing, fails, or produces no samples for an utterance.
    """
    import numpy as np

    data = _data_folder()
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        # espeak-ng keeps only about 160 characters of the path to its data and does not find the data if it is longer.
        link = Path(folder) / data.name
        link.symlink_to(data.absolute())
        library = _library(folder, link)
        recordings = [np.frombuffer(samples, np.int16) for samples in _speak(library, utterances)]
    for utterance, samples in zip(utterances, recordings, strict=True):
        if not samples.size:
            raise DataError(f"espeak-ng produced no samples for {utterance}")
    return recordings


def _library(folder: str, data: Path) -> Any:
    """Load a copy of espeak-ng from `folder` with ctypes, and set it up to pass its samples to a callback."""
    import ctypes

    import espeakng_loader

    library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
    synchronous, dont_exit = 2, 0x8000
    rate = library.espeak_Initialize(synchronous, 0, os.fsencode(data), dont_exit)
    if rate != SAMPLE_RATE_HZ:
        raise DataError(f"espeak_Initialize returned {rate}, not {SAMPLE_RATE_HZ}, for the data in {data}")
    library.espeak_ng_SetRandSeed(1)
    ctypes.CDLL(None).srand(1)
    return library


def _speak(library: Any, utterances: list[Utterance]) -> list[bytes]:
    """Return the samples of each utterance, int16 in the byte order of this machine."""
    import ctypes

    chunks: list[bytes] = []

    def receive(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    callback = callback_type(receive)  # ctypes requires a reference to the callback while the library may call it
    library.espeak_SetSynthCallback(callback)
    rate_parameter, pitch_parameter, characters_utf8 = 1, 3, 1
    recordings: list[bytes] = []
    for utterance in utterances:
        chunks.clear()
        voice = f"{utterance.language}+{utterance.variant}"
        text = utterance.text.encode() + b"\0"
        status = (
            library.espeak_SetVoiceByName(voice.encode())
            or library.espeak_SetParameter(rate_parameter, utterance.rate_wpm, 0)
            or library.espeak_SetParameter(pitch_parameter, utterance.pitch, 0)
            or library.espeak_Synth(text, len(text), 0, 1, 0, characters_utf8, None, None)
        )
        if status:
            raise DataError(f"espeak-ng returned status {status} for {utterance}")
        recordings.append(b"".join(chunks))
    return recordings

"""Speech synthesis with espeak-ng, in a separate process.

espeak-ng keeps state between utterances (the phase of its oscillators, the random numbers of its breath noise) that
cannot be reset, and it seeds itself from the clock. A new process with a fixed seed and the same utterances in the same
order gives the same samples. The process also isolates the caller from crashes and printed output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22050
"""Sample rate of espeak-ng's voices."""
REQUIRES = {"espeakng_loader": "pip install 'harness[speech]'"}
_TIMEOUT_S = 120


class Utterance(NamedTuple):
    """Text to synthesize, with its language and voice settings."""

    text: str
    language: str
    """Name of a file in espeak-ng's ``lang`` folder, such as ``en-us``."""
    variant: str
    """Name of a file in espeak-ng's ``voices/!v`` folder, such as ``f1``."""
    rate_wpm: int
    """Speaking rate in words per minute; espeak-ng's default is 175."""
    pitch: int
    """Pitch from 0 to 99; espeak-ng's default is 50."""


def _data_folder() -> Path:
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError(f"speech synthesis needs espeak-ng; run: {REQUIRES['espeakng_loader']}") from error
    return Path(espeakng_loader.get_data_path())


def variants() -> tuple[str, ...]:
    """Return the sorted names of the installed voice variants. Raises `harness.DataError` if there are none."""
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

    _data_folder()
    with tempfile.TemporaryDirectory(prefix="harness-espeak-") as folder:
        output = Path(folder) / "speech.npz"
        try:
            child = subprocess.run(
                [sys.executable, "-P", "-m", __name__, str(output)],
                input=json.dumps(utterances),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"espeak-ng did not finish within {_TIMEOUT_S} s") from error
        if child.returncode:
            reason = (child.stderr + child.stdout).strip()[-1000:]
            raise DataError(f"espeak-ng failed (exit status {child.returncode}): {reason or 'no message'}")
        with np.load(output) as stored:
            samples, lengths = stored["samples"], stored["lengths"]
    if not lengths.all():
        raise DataError(f"espeak-ng produced no samples for {utterances[int(lengths.argmin())]}")
    return np.split(samples, np.cumsum(lengths)[:-1])


def _library() -> Any:
    """Return espeak-ng as a ctypes library, initialized to pass its samples to a callback.

    This changes the working directory so that the path to the data can be relative: espeak-ng keeps only about 160
    characters of the path and does not find the data if it is longer.
    """
    import ctypes
    import os

    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
    os.chdir(_data_folder().parent)
    synchronous, dont_exit = 2, 0x8000
    rate = library.espeak_Initialize(synchronous, 0, os.fsencode(_data_folder().name), dont_exit)
    if rate != SAMPLE_RATE_HZ:
        sys.exit(f"espeak_Initialize returned {rate}, not {SAMPLE_RATE_HZ}, for the data in {_data_folder()}")
    return library


def _main(output: Path, utterances: list[Utterance]) -> None:
    """Synthesize `utterances` in the child process.

    Writes ``samples`` (int16, concatenated) and ``lengths`` (int64) to the npz file `output`.
    """
    import ctypes

    import numpy as np

    library = _library()
    chunks: list[bytes] = []

    def receive(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    callback = callback_type(receive)  # this reference keeps the callback alive while the library may call it
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(1)
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
            sys.exit(f"espeak-ng returned status {status} for {utterance}")
        recordings.append(b"".join(chunks))
    lengths = np.array([len(samples) // 2 for samples in recordings], np.int64)
    np.savez(output, samples=np.frombuffer(b"".join(recordings), np.int16), lengths=lengths)


if __name__ == "__main__":
    _main(Path(sys.argv[1]).absolute(), [Utterance(*fields) for fields in json.load(sys.stdin)])

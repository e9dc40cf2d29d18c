"""Decoding of image and audio files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.user_files.location import REMEDIES, placeholder
from harness.errors import RecordError
from harness.records.reading import open_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]


UNREAD = "-"


class UnreadableError(Exception):
    """Error for an image or audio file that cannot be read. The message states the reason."""


def file_digests(files: Iterable[Path]) -> list[str]:
    """Return the SHA-256 digest (hex) of each file, or ``-`` for a file that cannot be read."""
    digests = []
    for path in files:
        try:
            with open_named(path, 2**63) as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except (OSError, RecordError):
            digests.append(UNREAD)
    return digests


def content_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """Return the SHA-256 digest (hex) of the names and content digests of files."""
    total = hashlib.sha256()
    for name, content in zip(names, digests, strict=True):
        total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def check_header(path: Path, kind: str) -> None:
    """Check a file quickly, by reading only its header. Raises `UnreadableError` if the header is invalid."""
    if kind == "image":
        with _image(path):
            pass
    else:
        import soundfile

        with _as_unreadable(path), _audio(path) as source:
            if path.suffix.lower() in REMEDIES and path.exists():
                raise UnreadableError(
                    f"the format {path.suffix.lower()} cannot be read; {REMEDIES[path.suffix.lower()]}"
                )
            info = soundfile.info(source)
            if not info.frames:
                raise UnreadableError("the recording has no samples")
            _check_rate(info.samplerate)


def read_image(path: Path, shorter_side: int, notes: Counter[str] | None = None) -> NDArray[np.uint8 | np.float32]:
    """Return the pixels ``[H, W, C]``, with C = 1 for grayscale images and C = 3 (RGB) for all other images.

    8-bit images are returned as uint8. Grayscale images with more than 8 bits per pixel do not have a fixed range. Such
    images are returned as float32 with their original values; use `scaled` to convert them. The EXIF orientation is
    applied, and transparent areas become white. If the image's shorter side is longer than `shorter_side`, the image is
    scaled down to this length.

    `notes` counts the images whose content was partly ignored, keyed by reason. Raises `UnreadableError` if the file
    cannot be decoded.
    """
    import numpy as np
    from PIL import Image

    notes = Counter() if notes is None else notes
    with _image(path) as opened, _as_unreadable(path):
        if opened.format == "PNG" and opened.mode in ("RGB", "RGBA") and _png_bits(path) == 16:
            notes["16 bits per channel, but only the upper 8 are used"] += 1
        opened.draft("RGB" if opened.mode != "L" else "L", (2 * shorter_side, 2 * shorter_side))
        unit = _pixel_unit(path, opened)
        image = rendered(opened, notes)
        if image.mode not in ("L", "RGB"):
            numbers = np.asarray(image).astype(np.float32) * np.float32(unit)
            if not np.isfinite(numbers).all():
                raise UnreadableError("it contains pixels that are not finite numbers")
            image = Image.fromarray(numbers)
        excess = min(image.size) / shorter_side
        if excess > 1:
            width, height = (max(1, round(side / excess)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def rendered(image: Any, notes: Counter[str]) -> Any:
    """Return a Pillow image in mode ``L`` or ``RGB``. The mode of grayscale images with more than 8 bits per pixel is
    not changed.

    The EXIF orientation is applied, and transparent areas become white. `notes` counts the images whose content was
    partly ignored, by reason. Raises `UnreadableError` if no part of the image is visible, and Pillow's exceptions if
    the image cannot be decoded or converted.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # in MPO files, phones store previews as frames
        which = "current one" if image.tell() else "first"
        notes[f"more than one frame, but only the {which} is used"] += 1
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return image
    if image.mode in ("1", "L"):
        return image.convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if np.min(layer.getchannel("A").getextrema()) < 255:
        if not np.ptp(image.getextrema(), axis=-1).any():
            raise UnreadableError(
                "nothing is visible after the transparent parts are replaced with white; save the image without "
                "transparency"
            )
        notes["transparent parts, which became white"] += 1
    return image


def described(notes: Counter[str], kind: str) -> list[str]:
    """Return a warning for each reason why the content of images or recordings was partly ignored."""
    noun = "image" if kind == "image" else "recording"
    return [
        f"{count:,} {noun} has {what}" if count == 1 else f"{count:,} {noun}s have {what}"
        for what, count in notes.items()
    ]


def decoded_digest(content: NDArray[Any], rate_hz: int = 0) -> str:
    """Return a digest of the pixels ``[H, W, C]`` of an image, or of the 16-bit samples of a recording.

    The digest does not depend on the file format, the metadata, or whether a grayscale image is stored in color.
    """
    import numpy as np

    if content.ndim == 1:
        content = np.rint(content * 32767).astype(np.int16)
    elif (content == content[..., :1]).all():
        content = content[..., :1]
    text = f"{content.dtype} {content.shape} {rate_hz}".encode()
    return hashlib.sha256(text + np.ascontiguousarray(content).tobytes()).hexdigest()


def is_unscaled(pixels: NDArray[Any]) -> bool:
    """Return True if the pixels that `read_image` returned are unscaled."""
    return pixels.dtype != "uint8"


def value_range(images: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the smallest and largest pixel values of unscaled images."""
    ends = [(float(pixels.min()), float(pixels.max())) for pixels in images]
    return min(low for low, _ in ends), max(high for _, high in ends)


def scaled(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Convert unscaled pixels to uint8 by mapping `low` to 0 and `high` to 255. Other values are clipped."""
    import numpy as np

    fractions = (pixels.astype(np.float64) - low) / (high - low if high > low else 1.0)
    whole: NDArray[np.uint8] = np.rint(fractions.clip(0, 1) * 255).astype(np.uint8)
    return whole


def _png_bits(path: Path) -> int:
    """Return the bit depth from a PNG file's header."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _pixel_unit(path: Path, opened: Any) -> float:
    """Return the factor that undoes Pillow's scaling of integer PGM files. Pillow scales the maximum in the header to
    65,535.
    """
    if opened.format != "PPM" or not opened.mode.startswith("I"):
        return 1.0
    with path.open("rb") as file:
        header = re.sub(rb"#[^\n]*", b" ", file.read(512)).split(maxsplit=4)
    return int(header[3]) / 65535


def read_audio(path: Path, notes: Counter[str] | None = None) -> tuple[NDArray[np.float32], int]:
    """Return the average of all channels as float32 ``[samples]`` in [-1, 1], and the sample rate in Hz.

    `notes` counts the recordings whose content was partly lost, keyed by reason. Raises `UnreadableError` if the file
    cannot be decoded.
    """
    import numpy as np
    import soundfile

    with _as_unreadable(path), _audio(path) as source:
        channels, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
        if not len(channels):
            raise UnreadableError("the recording has no samples")
        _check_rate(rate_hz)
        waveform = channels.mean(axis=1, dtype=np.float32)
        if not np.isfinite(waveform).all():
            raise UnreadableError("the recording contains samples that are not finite")
        if np.abs(waveform).max() < CANCELED * np.abs(channels).max():
            raise UnreadableError("its channels cancel out when they are averaged; save the recording with one channel")
        if notes is not None and _power(waveform) < FAINT**2 * _power(channels):
            notes["channels that nearly cancel out when they are averaged"] += 1
    return waveform.clip(-1, 1), int(rate_hz)


def _check_rate(rate_hz: int) -> None:
    if rate_hz > MAX_RATE_HZ:
        raise UnreadableError(
            f"its header states a sample rate of {rate_hz:,} Hz; resample it to at most {MAX_RATE_HZ:,} Hz"
        )


def _power(samples: NDArray[np.float32]) -> float:
    return float((samples.astype("float64") ** 2).mean())


FAINT = 0.05
"""If the ratio of the root mean square of the averaged channels to the root mean square of all channels is below this
value, most of the sound is considered lost. If only one of 16 channels contains sound, the ratio is 0.25."""
CANCELED = 1e-3
"""Minimum ratio of the peak of the averaged channels to the peak of the individual channels. Below this ratio, the
channels are considered to cancel each other out.
"""
MAX_RATE_HZ = 768_000
"""Maximum sample rate, which is the highest rate of audio hardware. The filter used for resampling has up to 20
coefficients per hertz of the sample rate."""
STREAMED = 0x7FFF0000
"""A WAV file is assumed to have been written to a stream if its header contains a size of at least this value. Programs
that cannot update the header store 0 or the largest 31-bit or 32-bit number, sometimes rounded.
"""


@contextmanager
def _audio(path: Path) -> Iterator[Any]:
    """Yield a source for soundfile. The source is the path of the file. For a WAV file that was written to a stream,
    the source is a copy with the correct sizes in the header.

    Raises `UnreadableError` if a WAV file is truncated, because a decoder would return a shorter recording without an
    error.
    """
    import io

    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            yield str(path)
            return
        actual, start, data_bytes = path.stat().st_size, 12, -1
        while data_bytes < 0 and len(chunk := file.read(8)) == 8:  # a chunk starts with its id and size
            size = int.from_bytes(chunk[4:], "little")
            start += 8
            if chunk[:4] == b"data":
                data_bytes = size
            else:
                start += size + size % 2
                file.seek(start)
        riff_bytes, left = int.from_bytes(head[4:8], "little"), actual - start
        known = 0 < riff_bytes < STREAMED
        if known and actual < 8 + riff_bytes:
            raise UnreadableError(_truncated(8 + riff_bytes, actual))
        if left < data_bytes < STREAMED:
            raise UnreadableError(_truncated(start + data_bytes, actual))
        empty = not data_bytes and (not left or re.fullmatch(rb"[ -~]{4}", file.read(4)) is not None)  # another chunk
        if data_bytes <= left and (data_bytes or empty):
            yield str(path)
            return
        file.seek(0)
        content = bytearray(file.read())
    content[4:8] = min(actual - 8, 2**32 - 1).to_bytes(4, "little")
    content[start - 4 : start] = min(left, 2**32 - 1).to_bytes(4, "little")
    yield io.BytesIO(content)


def _truncated(stated: int, actual: int) -> str:
    return f"the file is truncated: its header states {stated:,} bytes, but it has {actual:,}"


@contextmanager
def _image(path: Path) -> Iterator[Any]:
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems are reported below
        with _as_unreadable(path):
            if _is_heif(path):
                _register_heif()
            opened = Image.open(path)
        with opened:
            yield opened


HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands of HEIF files (ISO/IEC 23008-12, annexes B and E), which Pillow can read only with the package pillow-heif."""
AVIF = frozenset((b"avif", b"avis"))
"""Brands of AVIF files, which may also have brands of HEIF files."""


def _is_heif(path: Path) -> bool:
    """Return whether a file has the brands of an HEIF image. The suffix of the file is ignored, because uploaded files
    may have no suffix, and some programs save HEIF photos with the suffix .jpg."""
    with path.open("rb") as file:
        head = file.read(256)
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]  # in units of four bytes: major brand, version, other brands
    found = {brands[start : start + 4] for start in range(0, len(brands), 4)}
    return bool(found & HEIF) and not found & AVIF


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UnreadableError("reading HEIF images requires another package: pip install pillow-heif") from None
    register_heif_opener()


@contextmanager
def _as_unreadable(path: Path) -> Iterator[None]:
    """Convert exceptions that decoders raise for damaged files to `UnreadableError`.

    `UnreadableError` is also raised if the file is not a regular file, because reading from a pipe could block forever.
    """
    try:
        if path.exists() and not path.is_file():
            raise UnreadableError("it is not a regular file")
        yield
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:
        if not path.exists():
            raise UnreadableError("the file does not exist") from None
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableError(f"the file cannot be read: {error.strerror}") from None
        reason = str(error).replace(repr(str(path)), "file").replace(str(path), "file").strip() or "damaged"
        with path.open("rb") as file:
            instead = placeholder(file.read(200))
        if instead:
            raise UnreadableError(f"the file is {instead}") from None
        if not path.stat().st_size:
            reason = "it is empty"
        elif type(error).__name__ == "DecompressionBombError":
            pixels = re.search(r"\d+", reason)
            count = f"{int(pixels[0]):,}" if pixels else "too many"
            raise UnreadableError(f"the image is too large: it has {count} pixels; scale it down") from None
        elif type(error).__name__ == "UnidentifiedImageError":  # Pillow's message contains only the file name
            reason = "its format is unknown"
        raise UnreadableError(f"the file cannot be decoded ({reason.splitlines()[0]})") from None

"""Discovery and decoding of image and audio files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.user_files.location import MEDIA, is_hidden
from harness.data.user_files.splitting import NAMES
from harness.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]


class UnreadableError(Exception):
    """Error for an image or audio file that cannot be read. The message is the reason."""


def files_by_class(root: Path, kind: str) -> tuple[list[str], list[str], list[str] | None]:
    """Return the files below `root` as sorted relative paths, the class of each file and the split of each file.

    By default, the class is the name of the top-level folder and the splits are None. If the top-level folders are
    named after splits, the class is the name of the second-level folder. Raises `harness.DataError` for any other
    structure.
    """
    files, others = _files(root, kind)
    if not files:
        raise DataError(f"{root}: the folder and its subfolders contain no {kind} files ({', '.join(MEDIA[kind])})")
    loose = [file for file in files if "/" not in file]
    advice = "move each file into a folder named after its class, or add a metadata file with paths and labels"
    if loose:
        raise DataError(f"{root}: {loose[0]} is not in a class folder; {advice}")
    tops = sorted({file.split("/")[0] for file in files})
    named = [top for top in tops if top.lower() in NAMES]
    if len(named) < len(tops):
        if len({NAMES[top.lower()] for top in named}) > 1:
            others_shown = ", ".join(top for top in tops if top not in named)
            raise DataError(
                f"{root}: split folders ({', '.join(named)}) are mixed with other folders ({others_shown}); keep "
                "only one of the two kinds"
            )
        _check_used(root, kind, files, others, 1)
        return files, [file.split("/")[0] for file in files], None
    shallow = [file for file in files if file.count("/") < 2]
    if shallow:
        raise DataError(f"{root}: {shallow[0]} is in a split folder, but not in a class folder; {advice}")
    _check_used(root, kind, files, others, 2)
    return files, [file.split("/")[1] for file in files], [NAMES[file.split("/")[0].lower()] for file in files]


def _check_used(root: Path, kind: str, files: list[str], others: list[str], level: int) -> None:
    """Raise `harness.DataError` for a class folder without usable files, because the class would be silently
    dropped."""
    used = {tuple(file.split("/")[:level]) for file in files}
    for file in others:
        *folders, _ = file.split("/")
        if len(folders) >= level and tuple(folders[:level]) not in used:
            raise DataError(
                f"{root}: the class folder {'/'.join(folders[:level])} contains {file}, but no {kind} files "
                f"({', '.join(MEDIA[kind])}); convert its files, or move the folder elsewhere"
            )


def _files(root: Path, kind: str) -> tuple[list[str], list[str]]:
    """Return the files of one kind below `root`, and all other files, as sorted relative paths.

    Raises `harness.DataError` for a folder that cannot be read, and for a symbolic link loop.
    """

    def refuse(error: OSError) -> None:  # os.walk() would skip the folder and might silently drop a class
        raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}") from None

    files: list[str] = []
    others: list[str] = []
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        relative = Path(folder).relative_to(root)
        for name in names:
            if not is_hidden(name):
                kept = files if Path(name).suffix.lower() in MEDIA[kind] else others
                kept.append((relative / name).as_posix())
        if len(Path(folder).parts) - len(root.parts) > 32:
            raise DataError(
                f"{folder}: folders are nested more than 32 levels deep; remove symbolic links that form a loop"
            )
    return sorted(files), sorted(others)


def content_digest(files: Iterable[tuple[str, Path]]) -> str:
    """Return the SHA-256 digest (hex) of file names and contents. Only the name is included if a file is unreadable."""
    total = hashlib.sha256()
    for name, path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):  # ValueError for an invalid file name
            content = "-"
        total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def check_header(path: Path, kind: str) -> None:
    """Check a file quickly by reading only its header. Raises `UnreadableError` if the header is invalid."""
    if kind == "image":
        with _image(path):
            pass
    else:
        import soundfile

        with _as_unreadable(path):
            if not soundfile.info(path).frames:
                raise UnreadableError("the recording has no samples")
            _check_length(path)


def _check_length(path: Path) -> None:
    """Raise `UnreadableError` for a truncated WAV file, which decoders would read as a shorter recording.

    The RIFF header states the length in bytes 4 to 7 (little-endian). Programs that write a stream store 0 or the
    maximum value instead.
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    stated, actual = 8 + int.from_bytes(head[4:8], "little"), path.stat().st_size
    if stated not in (8, 8 + 0xFFFFFFFF) and actual < stated:
        raise UnreadableError(f"the file is truncated: its header states {stated:,} bytes, but it has {actual:,}")


def read_image(path: Path, shorter_side: int) -> NDArray[np.uint8]:
    """Return the pixels as uint8 ``[H, W, C]``, with C = 1 for grayscale images and C = 3 (RGB) for all others.

    The EXIF orientation is applied, and transparent parts become white. If the shorter side is longer than
    `shorter_side`, the image is scaled down to this length. Raises `UnreadableError` if the file cannot be decoded.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with _image(path) as opened, _as_unreadable(path):
        opened.draft("RGB" if opened.mode != "L" else "L", (2 * shorter_side, 2 * shorter_side))
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits per pixel; keep the upper 8
            image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
        elif image.mode in ("1", "L"):
            image = image.convert("L")
        elif image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        elif image.mode == "F":
            raise UnreadableError("the range of its floating-point pixels is unknown; convert it to 8 or 16 bits")
        else:
            image = image.convert("RGB")
        excess = min(image.size) / shorter_side
        if excess > 1:
            width, height = (max(1, round(side / excess)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def read_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the average of all channels, float32 ``[samples]`` in [-1, 1], and the sample rate in Hz.

    Raises `UnreadableError`.
    """
    import numpy as np
    import soundfile

    with _as_unreadable(path):
        channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        if not len(channels):
            raise UnreadableError("the recording has no samples")
        waveform = channels.mean(axis=1, dtype=np.float32)
        if not np.isfinite(waveform).all():
            raise UnreadableError("the recording has samples that are not finite")
    return waveform.clip(-1, 1), int(rate_hz)


def _image(path: Path) -> Any:
    from PIL import Image

    with _as_unreadable(path):
        return Image.open(path)


@contextmanager
def _as_unreadable(path: Path) -> Iterator[None]:
    """Convert the exceptions that decoders raise for damaged files to `UnreadableError`."""
    try:
        yield
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:
        if not path.exists():
            raise UnreadableError("the file does not exist") from None
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableError(f"the file cannot be read: {error.strerror}") from None
        reason = str(error).replace(repr(str(path)), "file").replace(str(path), "file").strip() or "damaged"
        if not path.stat().st_size:
            reason = "it is empty"
        elif type(error).__name__ == "UnidentifiedImageError":  # Pillow's message contains only the file name
            reason = "its format is unknown"
        raise UnreadableError(f"the file cannot be decoded ({reason.splitlines()[0]})") from None

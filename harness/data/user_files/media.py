"""Images and recordings: which files there are, and what is in them."""

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
    """A file is no image or recording, in a few words."""


def in_folders(root: Path, kind: str) -> tuple[list[str], list[str], list[str] | None]:
    """The files below `root`, relative to it and sorted; the class of each, which is its folder's name; and the split
    of each, where the folders are first of splits, then of classes.

    Raises `harness.DataError` for folders that say neither.
    """
    files, others = _files(root, kind)
    if not files:
        raise DataError(f"{root}: there are no files of the kind {kind} ({', '.join(MEDIA[kind])}) in it or below")
    loose = [file for file in files if "/" not in file]
    advice = "put each file into a folder named after its class, or give a metadata file with paths and labels"
    if loose:
        raise DataError(f"{root}: {loose[0]} is in no class's folder; {advice}")
    tops = sorted({file.split("/")[0] for file in files})
    named = [top for top in tops if top.lower() in NAMES]
    if len(named) < len(tops):
        if len({NAMES[top.lower()] for top in named}) > 1:
            unlike = ", ".join(top for top in tops if top not in named)
            raise DataError(
                f"{root}: there are folders of splits ({', '.join(named)}) and others ({unlike}) side by side"
            )
        _check_used(root, kind, files, others, 1)
        return files, [file.split("/")[0] for file in files], None
    shallow = [file for file in files if file.count("/") < 2]
    if shallow:
        raise DataError(f"{root}: {shallow[0]} is in a split's folder, but in no class's; {advice}")
    _check_used(root, kind, files, others, 2)
    return files, [file.split("/")[1] for file in files], [NAMES[file.split("/")[0].lower()] for file in files]


def _check_used(root: Path, kind: str, files: list[str], others: list[str], level: int) -> None:
    """Raise `harness.DataError` for a class's folder that holds other files only: the class would be missing without a
    word."""
    used = {tuple(file.split("/")[:level]) for file in files}
    for file in others:
        *folders, _ = file.split("/")
        if len(folders) >= level and tuple(folders[:level]) not in used:
            raise DataError(
                f"{root}: {'/'.join(folders[:level])} holds {file}, but no file that can be read "
                f"({', '.join(MEDIA[kind])}); convert what is in it, or move it elsewhere"
            )


def _files(root: Path, kind: str) -> tuple[list[str], list[str]]:
    """The files of the kind below `root`, and the others, sorted and relative to it.

    Raises `harness.DataError` for a folder that cannot be read, and for links that lead back.
    """

    def refuse(error: OSError) -> None:  # else a class would be missing without a word
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
            raise DataError(f"{folder}: folders are nested more than 32 deep; does a link lead back?")
    return sorted(files), sorted(others)


def content_digest(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 (hex) over the names and the bytes of files; one that cannot be read counts by its name."""
    total = hashlib.sha256()
    for name, path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):  # the latter for a name that no file can have
            content = "-"
        total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def look_at(path: Path, kind: str) -> None:
    """Read what a file says of itself, which costs little. Raises `UnreadableError`."""
    if kind == "image":
        with _image(path):
            pass
    else:
        import soundfile

        with _told(path):
            if not soundfile.info(path).frames:
                raise UnreadableError("it holds no sound")
            _check_length(path)


def _check_length(path: Path) -> None:
    """Decoders take a WAV file that was cut off for a short one: its header says how long it should be (RIFF, bytes 4
    to 8, little-endian; writers of streams leave 0 or the largest number there)."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    told, found = 8 + int.from_bytes(head[4:8], "little"), path.stat().st_size
    if told not in (8, 8 + 0xFFFFFFFF) and found < told:
        raise UnreadableError(f"it is cut off: its header announces {told:,} bytes, there are {found:,}")


def read_image(path: Path, shorter_side: int) -> NDArray[np.uint8]:
    """Uint8 ``[H, W, C]``: gray (C = 1) for gray images, else RGB; upright as its EXIF says, transparent parts white.

    An image whose shorter side is longer than `shorter_side` is shrunk to it. Raises `UnreadableError`.
    """
    import numpy as np
    from PIL import Image, ImageOps

    with _image(path) as opened, _told(path):
        opened.draft("RGB" if opened.mode != "L" else "L", (2 * shorter_side, 2 * shorter_side))
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits, of which the higher 8 are kept
            image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
        elif image.mode in ("1", "L"):
            image = image.convert("L")
        elif image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        elif image.mode == "F":
            raise UnreadableError("its pixels are floating-point numbers, whose range is not known")
        else:
            image = image.convert("RGB")
        excess = min(image.size) / shorter_side
        if excess > 1:
            width, height = (max(1, round(side / excess)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def read_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Float32 ``[samples]`` in [-1, 1], the mean of the channels, and the rate in Hz. Raises `UnreadableError`."""
    import numpy as np
    import soundfile

    with _told(path):
        channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        if not len(channels):
            raise UnreadableError("it holds no sound")
        waveform = channels.mean(axis=1, dtype=np.float32)
        if not np.isfinite(waveform).all():
            raise UnreadableError("it holds samples that are not finite")
    return waveform.clip(-1, 1), int(rate_hz)


def _image(path: Path) -> Any:
    from PIL import Image

    with _told(path):
        return Image.open(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises for a damaged file into `UnreadableError`."""
    try:
        yield
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:
        if not path.exists():
            raise UnreadableError("there is no such file") from None
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableError(f"it cannot be read: {error.strerror}") from None
        what = str(error).replace(repr(str(path)), "it").replace(str(path), "it").strip() or "damaged"
        if not path.stat().st_size:
            what = "it is empty"
        elif type(error).__name__ == "UnidentifiedImageError":  # Pillow's, which names the file only
            what = "its format is not known"
        raise UnreadableError(f"it cannot be decoded ({what.splitlines()[0]})") from None

"""Images and recordings in memory, and their lossless encoding as files."""

from __future__ import annotations

import io
import numbers
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.data.user_files.media import described, rendered
from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

SAMPLE_RATE = "sample_rate"


@dataclass(frozen=True, kw_only=True)
class Media:
    """The images or recordings of a dataset in memory."""

    kind: Literal["image", "audio"]
    items: Sequence[Array | None]
    """Images, uint8 ``[H, W, C]`` with C = 1 or 3, or recordings, float32 or int16 ``[samples]``. None if missing."""
    rates_hz: Sequence[int] = ()
    """Sample rate of each recording, or 1 for a missing recording."""
    notes: Counter[str] = field(default_factory=Counter)
    """Number of images whose content was partly ignored, by reason; see `harness.data.user_files.media.rendered`."""

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def joined(cls, parts: Sequence[Media]) -> Media:
        """Return the items of all parts. Raises `harness.UsageError` if the parts contain different kinds of media."""
        if len({part.kind for part in parts}) > 1:
            raise UsageError("some splits contain images and others contain recordings; pass splits of the same kind")
        return cls(
            kind=parts[0].kind,
            items=[item for part in parts for item in part.items],
            rates_hz=[rate_hz for part in parts for rate_hz in part.rates_hz],
            notes=sum((part.notes for part in parts), Counter()),
        )

    def warnings(self) -> list[str]:
        """Return warnings about items whose content was partly ignored."""
        return described(self.notes, self.kind)

    def names(self) -> list[str | None]:
        """Return the name of each item's file, or None if the item is missing."""
        digits = max(6, len(str(len(self))))
        return [
            None if item is None else f"{number:0{digits}}.{self._suffix(item)}"
            for number, item in enumerate(self.items, start=1)
        ]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each file."""
        for number, (name, item) in enumerate(zip(self.names(), self.items, strict=True)):
            if name is not None and item is not None:
                yield name, _netpbm(item) if self.kind == "image" else _wav(item, self.rates_hz[number])

    def _suffix(self, item: Array) -> str:
        if self.kind == "audio":
            return "wav"
        return "pgm" if item.shape[-1] == 1 else "ppm"


def _netpbm(pixels: Array) -> bytes:
    """Return the pixels ``[H, W, C]`` in an uncompressed format, so that the bytes do not depend on a library."""
    height, width, channels = pixels.shape
    return f"P{5 if channels == 1 else 6}\n{width} {height}\n255\n".encode() + pixels.tobytes()


def _wav(samples: Array, rate_hz: int) -> bytes:
    from scipy.io import wavfile

    content = io.BytesIO()
    wavfile.write(content, rate_hz, samples)
    return content.getvalue()


def media_of(values: Mapping[str, Any], rows: int) -> tuple[Media | None, dict[str, Any]]:
    """Return the images or recordings among the columns, and the other columns.

    Raises `harness.UsageError` if several columns contain images or recordings, or if their type is not supported.
    """
    rated = SAMPLE_RATE in values
    kinds = {name: kind for name, column in values.items() if (kind := _kind(column, rated=rated)) is not None}
    if not kinds:
        return None, dict(values)
    if len(kinds) > 1:
        raise UsageError(
            f"the columns {' and '.join(map(repr, kinds))} contain images or recordings; pass only one such column"
        )
    ((column, kind),) = kinds.items()
    rest = {name: value for name, value in values.items() if name != column}
    if "file_name" in rest:
        raise UsageError("the column 'file_name' is reserved for the file names of the images or recordings; rename it")
    items = [None if is_missing(item) else item for item in values[column]]
    if kind == "image":
        notes: Counter[str] = Counter()
        images = [_image(item, column, row, notes) for row, item in enumerate(items, start=1)]
        return Media(kind="image", items=images, notes=notes), rest
    rates = _rates(items, rest.pop(SAMPLE_RATE, None), column)
    recordings = [_recording(item, column, row) for row, item in enumerate(items, start=1)]
    return Media(kind="audio", items=recordings, rates_hz=rates), rest


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, ``pd.NA`` or ``pd.NaT``."""
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, numbers.Real) and bool(value != value)


def _kind(column: Any, *, rated: bool) -> Literal["image", "audio"] | None:
    """Return the kind of media in a column, or None if the column contains neither images nor recordings. A
    2-dimensional array contains recordings if the data have a sample rate (`rated`)."""
    import numpy as np

    if isinstance(column, np.ndarray) and column.ndim > 1:
        return "image" if column.ndim > 2 else "audio" if rated else None
    if getattr(column, "dtype", np.dtype(object)) != np.dtype(object):
        return None
    first = next((cell for cell in column if not is_missing(cell)), None)
    if _is_picture(first) or (isinstance(first, np.ndarray) and first.ndim > 1):
        return "image"
    if (isinstance(first, Mapping) and "array" in first) or (isinstance(first, np.ndarray) and first.ndim == 1):
        return "audio"
    return None


def _is_picture(item: Any) -> bool:
    """Return whether an item is a Pillow image."""
    return hasattr(item, "getbands") and hasattr(item, "tobytes")


def _pixels(picture: Any, column: str, row: int, notes: Counter[str]) -> Array:
    """Return the pixels of a Pillow image, converted in the same way as the pixels of an image file."""
    import numpy as np

    try:
        return np.asarray(rendered(picture, notes))
    except MemoryError:
        raise
    except Exception as error:  # Pillow decodes images when they are first used, and raises many types of exceptions
        raise UsageError(
            f"column {column!r}: the image in row {row} (mode {picture.mode}) cannot be used: {error}"
        ) from None


def _image(item: Any, column: str, row: int, notes: Counter[str]) -> NDArray[np.uint8] | None:
    import numpy as np

    if item is None:
        return None
    if _is_picture(item):
        item = _pixels(item, column, row, notes)
    pixels = item[..., None] if isinstance(item, np.ndarray) and item.ndim == 2 else item
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.dtype != np.uint8:
        found = f"{item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else type(item).__name__
        raise UsageError(
            f"column {column!r}: the image in row {row} is {found}, expected a uint8 array [H, W] or [H, W, C]; scale "
            "the pixels to the range 0 to 255, and convert them with .astype('uint8')"
        )
    if pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise UsageError(
            f"column {column!r}: the image in row {row} has the shape {list(pixels.shape)}, expected [H, W, C] with 1 "
            "(grayscale) or 3 (RGB) channels in the last dimension"
        )
    return np.ascontiguousarray(pixels)


def _recording(item: Any, column: str, row: int) -> Array | None:
    import numpy as np

    if item is None:
        return None
    if isinstance(item, Mapping):
        item = np.asarray(item.get("array"))
    if not isinstance(item, np.ndarray) or item.ndim != 1 or not (item.dtype.kind == "f" or item.dtype == np.int16):
        found = f"{item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else type(item).__name__
        raise UsageError(
            f"column {column!r}: the recording in row {row} is {found}, expected a 1-dimensional array of floats or of "
            "int16; average the channels of a recording with several channels"
        )
    if item.dtype == np.int16:
        return item
    if np.abs(item, where=np.isfinite(item), out=np.zeros(len(item), item.dtype)).max(initial=0) > 1:
        raise UsageError(
            f"column {column!r}: the recording in row {row} has samples outside the range -1 to 1; divide the samples "
            "by their full scale, such as 32768 for 16 bits"
        )
    return item.astype(np.float32)


def _rates(items: Sequence[Any], given: Any, column: str) -> list[int]:
    """Return the sample rate of each recording, from the column ``sample_rate`` or from the items themselves, and 1 for
    a missing recording.

    Raises `harness.UsageError` if a rate is unknown or invalid, or if the two sources contradict each other.
    """
    rates = []
    for row, (item, rate) in enumerate(zip(items, [None] * len(items) if given is None else given, strict=True), 1):
        own = item.get("sampling_rate") if isinstance(item, Mapping) else None
        known: list[Any] = [each for each in (rate, own) if not is_missing(each)]
        if item is None:
            rates.append(1)
            continue
        if not known:
            raise UsageError(
                f"column {column!r} contains recordings, but the sample rate in row {row} is unknown; add "
                f"{SAMPLE_RATE!r} with the rate in Hz, such as {{'sample_rate': 16000}}"
            )
        for each in known:
            if not isinstance(each, numbers.Real) or not 1 <= float(each) < 2**31 or not float(each).is_integer():
                raise UsageError(f"{SAMPLE_RATE!r} in row {row} is {each!r}, expected an integer number of Hz")
        if len(set(known)) > 1:
            raise UsageError(
                f"{SAMPLE_RATE!r} in row {row} is {rate} Hz, but the recording specifies {own} Hz; remove "
                f"{SAMPLE_RATE!r} to use the rates of the recordings"
            )
        rates.append(int(known[0]))
    return rates

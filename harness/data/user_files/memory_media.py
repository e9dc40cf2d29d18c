"""Images and recordings in memory, and their encoding as files without loss."""

from __future__ import annotations

import io
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    """Sample rate of each recording."""

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def joined(cls, parts: Sequence[Media]) -> Media:
        """Return the items of all parts. Raises `harness.UsageError` if the parts have different kinds."""
        if len({part.kind for part in parts}) > 1:
            raise UsageError("some splits contain images and others contain recordings; pass splits of the same kind")
        return cls(
            kind=parts[0].kind,
            items=[item for part in parts for item in part.items],
            rates_hz=[rate_hz for part in parts for rate_hz in part.rates_hz],
        )

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
    """Return the pixels ``[H, W, C]`` in a format without compression, so that the bytes do not depend on a library."""
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
        raise UsageError("the column 'file_name' is reserved for the files of the images or recordings; rename it")
    items = [_unpacked(item) for item in values[column]]
    if kind == "image":
        return Media(kind="image", items=[_image(item, column, row) for row, item in enumerate(items, start=1)]), rest
    rates = _rates(values[column], rest.pop(SAMPLE_RATE, None), column, rows)
    return Media(
        kind="audio",
        items=[_recording(item, column, row) for row, item in enumerate(items, start=1)],
        rates_hz=rates,
    ), rest


def _kind(column: Any, *, rated: bool) -> Literal["image", "audio"] | None:
    """Return the kind of a column that contains images or recordings, judged by its first item. A 2-dimensional array
    contains recordings if the data have a sample rate (`rated`)."""
    import numpy as np

    if isinstance(column, np.ndarray) and column.ndim > 1:
        return "image" if column.ndim > 2 else "audio" if rated else None
    if getattr(column, "dtype", np.dtype(object)) != np.dtype(object):
        return None
    first = next((cell for cell in column if cell is not None), None)
    if _is_picture(first) or (isinstance(first, np.ndarray) and first.ndim > 1):
        return "image"
    if (isinstance(first, Mapping) and "array" in first) or (isinstance(first, np.ndarray) and first.ndim == 1):
        return "audio"
    return None


def _is_picture(item: Any) -> bool:
    """Return whether an item is a Pillow image."""
    return hasattr(item, "getbands") and hasattr(item, "tobytes")


def _unpacked(item: Any) -> Any:
    import numpy as np

    if _is_picture(item):
        return np.asarray(item if item.mode in ("L", "RGB") else item.convert("RGB") if item.mode == "P" else item)
    return np.asarray(item["array"]) if isinstance(item, Mapping) else item


def _image(item: Any, column: str, row: int) -> NDArray[np.uint8] | None:
    import numpy as np

    if item is None:
        return None
    pixels = item[..., None] if isinstance(item, np.ndarray) and item.ndim == 2 else item
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 3 or pixels.dtype != np.uint8:
        found = f"{item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else type(item).__name__
        raise UsageError(
            f"column {column!r}: the image in row {row} is {found}, expected a uint8 array [H, W] or [H, W, C]; scale "
            "the pixels to 0 to 255, and convert them with .astype('uint8')"
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
            f"column {column!r}: the recording in row {row} has samples outside of -1 to 1; divide the samples "
            "by their full scale, such as 32768 for 16 bits"
        )
    return item.astype(np.float32)


def _rates(column: Any, given: Any, name: str, rows: int) -> list[int]:
    """Return the sample rate of each recording, from the items themselves or from the column ``sample_rate``."""
    own = [item.get("sampling_rate") if isinstance(item, Mapping) else None for item in column]
    found = list(given) if given is not None else own
    for row, (item, rate) in enumerate(zip(column, found, strict=True), start=1):
        if item is None:
            continue
        if rate is None:
            raise UsageError(
                f"column {name!r} contains recordings, but their sample rate is unknown; add {SAMPLE_RATE!r} with the "
                "rate in Hz, such as {'sample_rate': 16000}"
            )
        if not isinstance(rate, numbers.Real) or not 1 <= float(rate) < 2**31 or not float(rate).is_integer():
            raise UsageError(f"{SAMPLE_RATE!r} in row {row} is {rate!r}, expected an integer number of Hz")
    return [int(rate) if rate is not None else 1 for rate in found] or [1] * rows

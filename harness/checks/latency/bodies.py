"""Conversion of raw test examples to HTTP request bodies in the format that ``harness serve`` expects."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

JSON = "application/json"


def bodies(
    kind: str,
    inputs: Mapping[str, Array],
    details: Mapping[str, Any],
    reading: Mapping[str, Any],
    columns: Sequence[str],
) -> tuple[str, list[bytes]]:
    """Return the content type and a list with the request body for each example.

    `inputs` contains the raw inputs, such as ``{"text": texts}``. `details` and `reading` are attributes of
    `harness.RawData`, and `columns` contains the names of a table's feature columns. Images are sent as PNG, and
    recordings as WAV with 32-bit floating-point samples, so that the service decodes exactly the same values. If the
    maximum pixel value, ``details["pixel_max"]``, is not 255, the pixels are scaled to the range 0 to 255 and rounded,
    because image files use this range. Raises `harness.UsageError` if examples of this kind cannot be sent.
    """
    if kind == "text":
        return JSON, [_json(str(text)) for text in inputs["text"]]
    if kind == "table":
        return JSON, [_json(row) for row in rows(inputs, reading, columns)]
    if kind == "image":
        return "image/png", [_png(image, details.get("pixel_max", 255)) for image in inputs["image"]]
    if kind == "audio":
        rates_hz = inputs.get("sample_rate_hz", [details.get("sample_rate_hz")] * len(inputs["waveform"]))
        return "audio/wav", [_wav(*pair) for pair in zip(inputs["waveform"], rates_hz, strict=True)]
    raise UsageError(f"examples of kind {kind!r} cannot be sent to a service; measure the run without --target")


def _json(instance: Any) -> bytes:
    return msgspec.json.encode({"instances": [instance]})


def rows(inputs: Mapping[str, Array], reading: Mapping[str, Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return each row of a table as a dictionary, with dates in ISO 8601 format and None for missing values."""
    if not columns:
        raise UsageError("the columns of the dataset have no names, so its rows cannot be sent to a service")
    dates, categorical = reading.get("dates", {}), list(reading["categories"])
    cells: dict[str, list[Any]] = {}
    place = 0
    for name in columns:
        if name in categorical:
            cells[name] = inputs["categories"][:, categorical.index(name)].tolist()
            continue
        width = len(dates[name]) if name in dates else 1
        values = inputs["features"][:, place : place + width].tolist()
        place += width
        if name in dates:
            cells[name] = [_date(dict(zip(dates[name], row, strict=True))) for row in values]
        else:
            cells[name] = [None if math.isnan(value) else value for (value,) in values]
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _date(parts: Mapping[str, float]) -> str | None:
    """Return a date or time in ISO 8601 format, given its parts by name, such as the year and the month."""
    if any(math.isnan(value) for value in parts.values()):
        return None
    day = "-".join(f"{int(parts[name]):0{width}d}" for name, width in _DAY if name in parts)
    if "hour" not in parts:
        return day
    seconds = min(86_399, round(3600 * parts["hour"]))  # not 24:00:00
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{day}T{clock}" if day else clock


_DAY = (("year", 4), ("month", 2), ("day", 2))


def _png(pixels: Array, pixel_max: float) -> bytes:
    """Encode an image ``[H, W, C]`` of 8-bit pixels, losslessly if `pixel_max` is 255."""
    import numpy as np
    from PIL import Image

    if pixels.dtype != np.uint8:
        raise UsageError("images with more than 8 bits cannot be sent to a service; measure the run without --target")
    if pixel_max != 255:
        pixels = np.round(pixels * (255 / pixel_max)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _wav(waveform: Array, rate_hz: Any) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, int(rate_hz), format="WAV", subtype="FLOAT")
    return file.getvalue()

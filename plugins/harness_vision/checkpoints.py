"""Translation of a checkpoint's ``preprocessor_config.json`` into options of the ``vision`` task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from harness import UsageError

FILE = "preprocessor_config.json"
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's resampling filters, indexed by filter number."""
_WARPED_FROM = 384
"""Minimum size in pixels at which ConvNext's processor stretches images instead of cropping them."""


class _Kind(NamedTuple):
    """Default values of an image processor for fields that are missing from the file."""

    resample: int
    square: bool
    """True if a size specified as a single number applies to both sides, False if it applies to the shorter side."""
    center_crop: bool


_KINDS = {
    "ConvNext": _Kind(resample=3, square=False, center_crop=False),
    "ViT": _Kind(resample=2, square=True, center_crop=False),
    "Bit": _Kind(resample=3, square=False, center_crop=True),
    "CLIP": _Kind(resample=3, square=False, center_crop=True),
}


class _Size(Struct, frozen=True, forbid_unknown_fields=True):
    shortest_edge: int | None = None
    height: int | None = None
    width: int | None = None


class _Preprocessor(Struct, frozen=True, kw_only=True):
    """The fields that affect the pixel values. If a field is None (null or missing), the processor's default is
    used."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    """Name of the image processor, as written by older versions of `transformers`."""
    do_resize: bool | None = None
    size: int | _Size | None = None
    crop_pct: float | None = None
    resample: int | None = None
    do_center_crop: bool | None = None
    crop_size: int | _Size | None = None
    do_rescale: bool | None = None
    rescale_factor: float | None = None
    do_normalize: bool | None = None
    image_mean: tuple[float, ...] | float | None = None
    image_std: tuple[float, ...] | float | None = None
    do_pad: bool | None = None


class _Network(Struct, frozen=True):
    num_channels: int = 3


def options_of(folder: Path) -> dict[str, Any]:
    """Return the task options that reproduce the output of the checkpoint's image processor in `transformers`.

    If there is no ``preprocessor_config.json``, only the number of channels is set, from ``config.json``. Raises
    `harness.UsageError` if a field cannot be read or has a value that the task does not support. The error message
    names the file and the field.
    """
    config = folder / "config.json"
    channels = _read(config, _Network).num_channels
    if channels not in (1, 3):
        raise _refusal(config, "num_channels", channels, "images must have 1 or 3 channels; use another checkpoint")
    path = folder / FILE
    if not path.is_file():
        return {"channels": channels}
    preprocessor = _read(path, _Preprocessor)
    return {"channels": channels} | _resizing(path, preprocessor) | _normalization(path, preprocessor, channels)


def _resizing(path: Path, preprocessor: _Preprocessor) -> dict[str, Any]:
    """Return the options that resize and crop images."""
    name, kind = _kind(path, preprocessor)
    if preprocessor.do_pad:
        raise _refusal(
            path, "do_pad", True, "the task does not pad images; set do_pad to false, or use scaling and cropping"
        )
    crop = None
    if _or_default(preprocessor.do_center_crop, kind.center_crop):
        crop = _sides(path, "crop_size", preprocessor.crop_size)
    if not _or_default(preprocessor.do_resize, True):
        return {"resize": "none"} | ({"image_size": crop} if crop else {})
    resample = _or_default(preprocessor.resample, kind.resample)
    if not 0 <= resample < len(_RESAMPLE):
        raise _refusal(path, "resample", resample, "use the number of a Pillow filter, from 0 to 5")
    options: dict[str, Any] = {"resample": _RESAMPLE[resample]}
    shorter = _shorter_side(path, preprocessor.size, kind)
    if shorter is None:
        full = _sides(path, "size", preprocessor.size)
        return options | {"resize": "stretch"} | _cropped(path, full, crop or full)
    if name == "ConvNext":
        if crop is not None:
            raise _refusal(
                path,
                "do_center_crop",
                True,
                f"{name}'s processor crops images by crop_pct; set do_center_crop to false",
            )
        if shorter >= _WARPED_FROM:
            return options | {"resize": "stretch", "image_size": (shorter, shorter)}
        share = _or_default(preprocessor.crop_pct, 224 / 256)
        if not 0.1 <= share <= 1:
            raise _refusal(path, "crop_pct", share, "the value must be between 0.1 and 1, such as 0.875")
        crop, shorter = (shorter, shorter), int(shorter / share)
    if crop is None:
        raise _refusal(
            path, "size.shortest_edge", shorter, "the images would differ in size; set do_center_crop and crop_size"
        )
    if crop[0] != crop[1]:
        raise _refusal(path, "crop_size", crop, "with size.shortest_edge, the crop must be a square")
    return options | {"resize": "cover"} | _cropped(path, (shorter, shorter), crop)


def _normalization(path: Path, preprocessor: _Preprocessor, channels: int) -> dict[str, Any]:
    """Return the options that normalize pixels.

    The task scales pixels to [0, 1], so a ``rescale_factor`` other than 1/255 changes the mean and the standard
    deviation accordingly.
    """
    unit = 255.0
    if _or_default(preprocessor.do_rescale, True):
        unit *= _or_default(preprocessor.rescale_factor, 1 / 255)
    if not unit > 0:
        raise _refusal(path, "rescale_factor", preprocessor.rescale_factor, "the value must be positive")
    if not _or_default(preprocessor.do_normalize, True):
        return {"mean": (0.0,), "std": (1 / unit,)}
    statistics = {}
    for field in ("image_mean", "image_std"):
        value = getattr(preprocessor, field)
        numbers = (value,) if isinstance(value, float) else value or ()
        if len(numbers) not in (1, channels) or (field == "image_std" and min(numbers) <= 0):
            wanted = "positive number" if field == "image_std" else "number"
            raise _refusal(path, field, value, f"specify one {wanted}, or one for each of the {channels} channels")
        statistics[field] = tuple(number / unit for number in numbers)
    return {"mean": statistics["image_mean"], "std": statistics["image_std"]}


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {str(error).replace('$.', '')}; fix the file") from None


def _refusal(path: Path, field: str, value: object, advice: str) -> UsageError:
    shown = "missing" if value is None else f"{value!r}"
    return UsageError(f"{path}: {field} is {shown}: {advice}")


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _kind(path: Path, preprocessor: _Preprocessor) -> tuple[str, _Kind]:
    """Return the processor's name, without suffixes, and its defaults.

    If the file does not name a processor, the default is ConvNext's processor, which `transformers` uses for ResNets.
    """
    field = "feature_extractor_type" if preprocessor.image_processor_type is None else "image_processor_type"
    processor = getattr(preprocessor, field)
    name = "ConvNext" if processor is None else processor
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(suffix)
    if name not in _KINDS:
        known = ", ".join(f"{name}ImageProcessor" for name in _KINDS)
        raise _refusal(
            path,
            field,
            processor,
            f"the processor is not supported; use one of {known}, or remove the file and set task options",
        )
    return name, _KINDS[name]


def _shorter_side(path: Path, size: int | _Size | None, kind: _Kind) -> int | None:
    """Return the target length of the shorter side in pixels, or None if the size specifies both sides."""
    if isinstance(size, int):
        return None if kind.square else _positive(path, "size", size)
    if size is None or size.shortest_edge is None:
        return None
    return _positive(path, "size.shortest_edge", size.shortest_edge)


def _sides(path: Path, field: str, size: int | _Size | None) -> tuple[int, int]:
    if isinstance(size, int):
        return _positive(path, field, size), size
    if size is None or size.height is None or size.width is None:
        raise _refusal(
            path, field, None if size is None else msgspec.to_builtins(size), "specify the height and the width"
        )
    return _positive(path, f"{field}.height", size.height), _positive(path, f"{field}.width", size.width)


def _positive(path: Path, field: str, pixels: int) -> int:
    if not 1 <= pixels <= 4096:
        raise _refusal(path, field, pixels, "the value must be between 1 and 4096 pixels")
    return pixels


def _cropped(path: Path, full: tuple[int, int], crop: tuple[int, int]) -> dict[str, Any]:
    share = crop[0] / full[0]
    if not 0.1 <= share <= 1 or crop[0] * full[1] != crop[1] * full[0]:
        advice = f"the crop must have the same aspect ratio as the size {full} and 10% to 100% of its height"
        raise _refusal(path, "crop_size", crop, advice)
    return {"image_size": crop, "crop_share": share}

"""Translation of a checkpoint's ``preprocessor_config.json`` into options of the ``speech`` task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness import UsageError

FILE = "preprocessor_config.json"


class _Extractor(Struct, frozen=True, kw_only=True):
    """The fields that affect the network's input, with the defaults of ``Wav2Vec2FeatureExtractor``."""

    feature_extractor_type: str = "Wav2Vec2FeatureExtractor"
    feature_size: int = 1
    sampling_rate: int = 16_000
    do_normalize: bool = True
    padding_side: str = "right"
    padding_value: float = 0.0
    return_attention_mask: bool | None = False


_SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "feature_extractor_type": (
        ("Wav2Vec2FeatureExtractor",),
        "the task supports Wav2Vec2FeatureExtractor only; use another checkpoint",
    ),
    "feature_size": ((1,), "the task supports one channel only; use another checkpoint"),
    "padding_side": (("right",), "the task pads at the end; set the field to 'right' in a copy of the checkpoint"),
    "padding_value": ((0.0,), "the task pads with zeros; set the field to 0 in a copy of the checkpoint"),
    "return_attention_mask": (
        (False, None),
        "the checkpoint was trained with an attention mask, which the task does not create; "
        "to use the checkpoint without a mask, set the field to false in a copy of the checkpoint",
    ),
}
"""Fields for which the task supports only certain values. Each entry contains the supported values and advice for all
other values."""


def options_of(folder: Path) -> dict[str, Any]:
    """Return the task options that reproduce the waveforms produced by the checkpoint's feature extractor.

    The result is empty if there is no ``preprocessor_config.json``. Raises `harness.UsageError` if a field cannot be
    read or has a value that the task does not support. The error message names the file and the field.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        extractor = msgspec.json.decode(path.read_bytes(), type=_Extractor)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {str(error).replace('$.', '')}; fix the file") from None
    for field, (supported, advice) in _SUPPORTED.items():
        value = getattr(extractor, field)
        if value not in supported:
            raise UsageError(f"{path}: {field} is {value!r}: {advice}")
    if extractor.sampling_rate < 1000:
        raise UsageError(
            f"{path}: sampling_rate is {extractor.sampling_rate}, but the rate must be at least 1000 Hz; fix the file"
        )
    return {"sample_rate_hz": extractor.sampling_rate, "normalize": extractor.do_normalize}

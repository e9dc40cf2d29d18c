"""How a checkpoint wants its clips prepared: ``preprocessor_config.json``, as `transformers` reads it, as options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from harness import UsageError

FILE = "preprocessor_config.json"


class _Extractor(Struct, frozen=True, kw_only=True):
    """The fields that change what the network hears, with the defaults of ``Wav2Vec2FeatureExtractor``."""

    feature_extractor_type: str = "Wav2Vec2FeatureExtractor"
    feature_size: int = 1
    sampling_rate: int = 16_000
    do_normalize: bool = True
    padding_side: str = "right"
    padding_value: float = 0.0
    return_attention_mask: bool | None = False


_ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "feature_extractor_type": (
        ("Wav2Vec2FeatureExtractor",),
        "the task gives raw waveforms, which that extractor makes; use another checkpoint",
    ),
    "feature_size": ((1,), "the task gives raw waveforms of one channel: 1; use another checkpoint"),
    "padding_side": (("right",), "the task pads at the end; set it to 'right' in a copy of the checkpoint"),
    "padding_value": ((0.0,), "the task pads with zeros; set it to 0 in a copy of the checkpoint"),
    "return_attention_mask": (
        (False, None),
        "the checkpoint was trained with padding masked, and the task gives no mask; "
        "set it to false in a copy of the checkpoint to let it hear the padding all the same",
    ),
}
"""Fields that the task can follow at some values only, and what to do about others."""


def options_of(folder: Path) -> dict[str, Any]:
    """Options of the task `speech` that give the waveforms that ``Wav2Vec2FeatureExtractor`` would.

    None without a ``preprocessor_config.json``. Raises `harness.UsageError` naming the file and the field that cannot
    be read, or asks for what the task does not do.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Extractor)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {str(error).replace('$.', '')}; mend it") from None
    for field, (possible, advice) in _ONLY.items():
        value = getattr(found, field)
        if value not in possible:
            raise UsageError(f"{path}: {field} is {value!r}: {advice}")
    if found.sampling_rate < 1000:
        raise UsageError(f"{path}: sampling_rate is {found.sampling_rate}: it must be at least 1000 Hz; mend it")
    return {"sample_rate_hz": found.sampling_rate, "normalize": found.do_normalize}

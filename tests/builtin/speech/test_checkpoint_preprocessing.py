"""Tests of waveform preparation according to a checkpoint's ``preprocessor_config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_speech.task import Speech, SpeechOptions

from harness import RawData, Split, UsageError

LENGTHS = (8000, 3000, 12_000)
BASE = {  # as in facebook/wav2vec2-base
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


def written(folder: Path, **changes: Any) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps({**BASE, **changes}))
    return folder


def raw(rate_hz: int) -> RawData:
    rng = np.random.default_rng(0)
    waveforms = np.empty(len(LENGTHS), object)
    waveforms[:] = [(0.1 + 0.3 * rng.uniform(-1, 1, length)).astype(np.float32) for length in LENGTHS]
    split = Split(inputs={"waveform": waveforms}, targets=np.arange(len(LENGTHS)) % 2)
    details = {"sample_rate_hz": rate_hz}
    return RawData(train=split, validation=split, test=split, label_names=("no", "yes"), details=details)


@pytest.mark.torch
@pytest.mark.parametrize("do_normalize", [True, False])
def test_waveforms_agree_with_the_feature_extractor(do_normalize: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=do_normalize)
    extractor.save_pretrained(tmp_path)
    options = SpeechOptions(**{**Speech().checkpoint_options(tmp_path), "seconds": 1.25})
    prepared = Speech().prepare(raw(8000), options)
    # Clips are processed separately and then padded, as by a data collator in training.
    limit: dict[str, Any] = {"max_length": 10_000, "truncation": True, "sampling_rate": 8000}
    each = [extractor(waveform, **limit)["input_values"][0] for waveform in raw(8000).train.inputs["waveform"]]
    expected = extractor.pad({"input_values": each}, padding="max_length", max_length=10_000, return_tensors="np")
    np.testing.assert_allclose(prepared.train.inputs["input_values"], expected["input_values"], rtol=1e-5, atol=1e-6)


def test_rate_and_normalization_come_from_the_checkpoint(tmp_path: Path) -> None:
    assert Speech().checkpoint_options(tmp_path) == {}
    assert Speech().checkpoint_options(written(tmp_path)) == {"sample_rate_hz": 16000, "normalize": True}
    told = Speech().checkpoint_options(written(tmp_path, sampling_rate=4000, do_normalize=False))
    prepared = Speech().prepare(raw(8000), SpeechOptions(**told))
    assert prepared.info.details["sample_rate_hz"] == 4000
    values = prepared.train.inputs["input_values"]
    assert values.shape == (3, 6000)
    assert values[2].mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"return_attention_mask": True}, "return_attention_mask is True: .*set the field to false in a copy"),
        ({"feature_size": 80}, "feature_size is 80: .*use another checkpoint"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "feature_extractor_type is 'Whisper.*use another"),
        ({"padding_value": 1.0}, "padding_value is 1.0: .*set the field to 0"),
        ({"padding_side": "left"}, "padding_side is 'left': .*set the field to 'right'"),
        ({"sampling_rate": 16}, "sampling_rate is 16, but the rate must be at least 1000 Hz"),
        ({"sampling_rate": "16k"}, "got `str` - at `sampling_rate`"),
        ({"do_normalize": 2}, "at `do_normalize`"),
    ],
)
def test_unsupported_preprocessing_is_rejected(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"preprocessor_config.json: .*{message}"):
        Speech().checkpoint_options(written(tmp_path, **changes))

"""Comparison of the PyTorch session with `transformers` on ResNet and wav2vec 2.0 checkpoints written by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import genuine_checkpoints as genuine
import numpy as np
import pytest

from harness import DataError, UsageError

pytestmark = pytest.mark.torch
pytest.importorskip("PIL", reason="images are resized by Pillow")


@pytest.fixture(autouse=True)
def _frameworks() -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module)


@pytest.mark.parametrize("case", genuine.CASES)
def test_logits_agree_with_transformers(case: str, tmp_path: Path) -> None:
    folder = tmp_path / case
    genuine.write(case, folder)
    inputs, weights, logits, notes = genuine.predicted(folder, "torch")
    expected = genuine.expected(case, folder, inputs, weights)
    assert logits.shape == (6, len(genuine.CLASSES))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(logits, axis=0).min() > 1e-3 * np.abs(logits).max()  # the logits depend on the example
    fresh = notes["pretrained_initialized_anew"]
    assert ("classifier" in fresh) == (case in genuine.NEW_HEADS), fresh


def test_inputs_are_what_the_checkpoint_expects(tmp_path: Path) -> None:
    genuine.write("resnet", tmp_path / "resnet")
    options = genuine.planned(tmp_path / "resnet", "torch").task_options
    assert (options["image_size"], options["crop_share"], options["channels"]) == ([28, 28], 0.875, 3)
    assert (options["resample"], options["mean"], options["std"]) == ("bicubic", [0.4] * 3, [0.2] * 3)
    genuine.write("wav2vec2", tmp_path / "wav2vec2")
    options = genuine.planned(tmp_path / "wav2vec2", "torch").task_options
    assert (options["sample_rate_hz"], options["normalise"]) == (8000, True)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("resnet", {"embedding_size": 12}, r"convolution\.weight has shape \(8, 3, 7, 7\), not \(12, 3, 7, 7\)"),
        ("resnet", {"depths": [2, 2]}, r"missing resnet\.encoder\.stages\.0\.layers\.1"),
        ("wav2vec2", {"intermediate_size": 48}, r"intermediate_dense\.weight has shape \(40, 24\), not \(48, 24\)"),
        ("wav2vec2", {"conv_bias": True}, r"missing wav2vec2\.feature_extractor\.conv_layers\.0\.conv\.bias"),
    ],
)
def test_arrays_that_do_not_match_the_configuration_are_listed(
    case: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    genuine.write(case, tmp_path / case)
    config = tmp_path / case / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(DataError, match=message):
        genuine.predicted(tmp_path / case, "torch")


@pytest.mark.parametrize("case", ["resnet", "wav2vec2"])
def test_bfloat16_checkpoints_are_rejected_with_advice(case: str, tmp_path: Path) -> None:
    genuine.write(case, tmp_path / case, dtype="bfloat16")
    with pytest.raises(UsageError, match="store the checkpoint in float32 or float16"):
        genuine.planned(tmp_path / case, "torch")


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("resnet", "hidden_act", "gelu"),
        ("resnet", "downsample_in_bottleneck", True),
        ("wav2vec2", "add_adapter", True),
        ("wav2vec2", "use_weighted_layer_sum", True),
    ],
)
def test_checkpoints_of_other_architectures_are_rejected(case: str, field: str, value: object, tmp_path: Path) -> None:
    genuine.write(case, tmp_path / case)
    config = tmp_path / case / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    with pytest.raises(UsageError, match=f"{field}={value!r}, but model {case!r} supports only"):
        genuine.planned(tmp_path / case, "torch")

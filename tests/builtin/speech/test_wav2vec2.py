from __future__ import annotations

import msgspec
import numpy as np
import pytest
from harness_speech.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config, frames

from harness import CombinationError, DataInfo, InputSpec
from harness.execute.weights import initial_weights


def _info(samples: int = 8000, outputs: int = 10) -> DataInfo:
    return DataInfo(
        kind="waveform",
        inputs={"input_values": InputSpec(shape=(samples,), dtype="float32")},
        objective="classification",
        outputs=outputs,
    )


def _config(variant: str, **changes: object) -> Wav2Vec2Config:
    return msgspec.convert({**Wav2Vec2.variants[variant], **changes}, Wav2Vec2Config)


def test_tiny_is_the_default_variant() -> None:
    assert list(Wav2Vec2.variants) == ["wav2vec2-tiny", "wav2vec2-base"]


def test_base_has_the_published_size() -> None:
    """Compare with the 95 million parameters of Baevski et al. 2020, which include those used in pretraining only."""
    parameters = Wav2Vec2().parameters(_config("wav2vec2-base"), _info())
    body = sum(int(np.prod(p.shape)) for p in parameters if p.name.startswith("wav2vec2."))
    assert body == 94_370_944  # facebook/wav2vec2-base: 94,371,712 with the 768 of masked_spec_embed
    assert frames(_config("wav2vec2-base"), 16000)[-1] == 49  # one frame every 20 ms


def test_initial_weight_g_agrees_with_the_norm_of_weight_v() -> None:
    name = "wav2vec2.encoder.pos_conv_embed.conv"
    for variant in Wav2Vec2.variants:
        weights = initial_weights(
            (p for p in Wav2Vec2().parameters(_config(variant), _info()) if p.name.startswith(name)), seed=0
        )
        norms = np.sqrt((weights[f"{name}.weight_v"] ** 2).sum(axis=(0, 1), keepdims=True))
        np.testing.assert_allclose(weights[f"{name}.weight_g"], norms, rtol=0.08)


def test_weight_decay_applies_to_matrices_and_kernels_only() -> None:
    for parameter in Wav2Vec2().parameters(_config("wav2vec2-tiny", conv_bias=True), _info()):
        matrix = parameter.name.endswith((".weight", ".weight_v")) and "norm" not in parameter.name
        assert (parameter.name, parameter.decay) == (parameter.name, matrix)


def test_flops_agree_with_a_count_by_hand() -> None:
    """Compute each term of the formula separately for two convolutions, one layer and 4 frames."""
    config = Wav2Vec2Config(
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=5,
        conv_dim=(2, 3),
        conv_kernel=(4, 2),
        conv_stride=(2, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=3,
        classifier_proj_size=7,
    )
    assert frames(config, 20) == [9, 4]
    convolutions = 2 * 9 * 4 * 1 * 2 + 2 * 4 * 2 * 2 * 3
    projection = 2 * 4 * 3 * 6
    positional = 2 * 4 * 4 * 6 * (6 // 3)
    layer = 4 * (2 * 4 * 6 * 6) + 2 * (2 * 4 * 4 * 6) + 2 * (2 * 4 * 6 * 5)
    head = 2 * 4 * 6 * 7 + 2 * 7 * 10
    total = convolutions + projection + positional + layer + head
    assert Wav2Vec2().flops_per_sample(config, _info(20)) == total


def test_waveforms_too_short_for_a_frame_are_rejected() -> None:
    config = _config("wav2vec2-base")
    assert frames(config, 400)[-1] == 1
    for call in (Wav2Vec2().parameters, Wav2Vec2().flops_per_sample):
        with pytest.raises(CombinationError, match="399 samples"):
            call(config, _info(399))


@pytest.mark.parametrize(
    "changes",
    [
        {"conv_dim": [8]},
        {"conv_dim": [], "conv_kernel": [], "conv_stride": []},
        {"num_attention_heads": 5},
        {"num_conv_pos_embedding_groups": 7},
        {"num_hidden_layers": -1},
        {"conv_stride": [5, 2, 2, 2, 2, 0]},
        {"feat_extract_norm": "batch"},
        {"hidden_sizes": 64},
    ],
)
def test_invalid_sizes_are_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _config("wav2vec2-tiny", **changes)

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from harness_speech.models.wav2vec2 import Wav2Vec2, Wav2Vec2Config, frames

from harness import DataInfo, InputSpec

CASES: dict[str, dict[str, Any]] = {
    **Wav2Vec2.variants,
    "layer norm everywhere": {
        **Wav2Vec2.variants["wav2vec2-tiny"],
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "do_stable_layer_norm": True,
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_wav2vec2_parameters_match_the_checkpoint_of_transformers(case: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = msgspec.convert(CASES[case], Wav2Vec2Config)
    info = DataInfo(
        kind="waveform",
        inputs={"input_values": InputSpec(shape=(5000,), dtype="float32")},
        objective="classification",
        outputs=7,
    )
    sizes = msgspec.to_builtins(config)
    theirs = transformers.Wav2Vec2Config(**sizes, num_labels=7, mask_time_prob=0, mask_feature_prob=0)
    with torch.device("meta"):
        network = transformers.Wav2Vec2ForSequenceClassification(theirs)
    published = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    expected = {}
    for name, value in network.state_dict().items():
        for current, former in published.items():
            name = name.replace(current, former)
        expected[name] = tuple(value.shape)
    assert {p.name: p.shape for p in Wav2Vec2().parameters(config, info)} == expected
    assert frames(config, 5000)[-1] == network._get_feat_extract_output_lengths(5000)

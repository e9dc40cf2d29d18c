"""Small model variants for testing the JAX networks."""

from __future__ import annotations

from typing import Any

from harness.testing import SessionCases

LSTM = {"embedding_size": 12, "hidden_size": 16}
RESNET = {"embedding_size": 4, "hidden_sizes": (4, 8), "depths": (1, 1)}
PRE_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "num_conv_pos_embeddings": 7}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "mlp": ("mlp", {}),
    "lstm": ("lstm", LSTM),
    "lstm-two-layers": ("lstm", {**LSTM, "num_layers": 2}),
    "lstm-max-mean": ("lstm", {**LSTM, "pooling": "max-mean"}),
    "bert": ("bert-tiny", {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}),
    "resnet": ("resnet-20", RESNET),
    "resnet-bottleneck": ("resnet-50", {**RESNET, "depths": (1, 2), "downsample_in_first_stage": True}),
    "wav2vec2": ("wav2vec2-tiny", {"num_hidden_layers": 1}),
    "wav2vec2-pre-norm": ("wav2vec2-tiny", {"num_hidden_layers": 1, **PRE_NORM}),
}
"""Mapping from the name of a case to a model variant and options for a small model."""

CASES = SessionCases("jax", MODELS)

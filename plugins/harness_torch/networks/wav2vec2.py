"""wav2vec 2.0 in PyTorch: ``transformers.Wav2Vec2ForSequenceClassification``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from harness import DataInfo, Network
from harness_torch.networks import bindings

_CHECKPOINT_NAMES = {
    "conv.parametrizations.weight.original0": "conv.weight_g",
    "conv.parametrizations.weight.original1": "conv.weight_v",
}
"""Mapping from torch's current names for the weight-normalization parameters to the names in published checkpoints."""


class Wav2Vec2(nn.Module):
    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.model = Wav2Vec2ForSequenceClassification(config)
        # In training, transformers computes the gradient of the waveform, which only gradient checkpointing needs.
        self.model.wav2vec2.feature_extractor._requires_grad = False

    def forward(self, input_values: Tensor) -> Tensor:
        return self.model(input_values).logits


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = Wav2Vec2(
        Wav2Vec2Config(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            conv_dim=config.conv_dim,
            conv_kernel=config.conv_kernel,
            conv_stride=config.conv_stride,
            conv_bias=config.conv_bias,
            feat_extract_norm=config.feat_extract_norm,
            num_conv_pos_embeddings=config.num_conv_pos_embeddings,
            num_conv_pos_embedding_groups=config.num_conv_pos_embedding_groups,
            do_stable_layer_norm=config.do_stable_layer_norm,
            classifier_proj_size=config.classifier_proj_size,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act="gelu",
            feat_extract_activation="gelu",
            hidden_dropout=dropout,
            attention_dropout=dropout,
            activation_dropout=dropout,
            feat_proj_dropout=dropout,
            layerdrop=0.0,
            apply_spec_augment=False,
            mask_time_prob=0.0,
            mask_feature_prob=0.0,
            num_labels=info.outputs,
            attn_implementation="sdpa",
        )
    )
    bound = bindings(module.model)
    for own, published in _CHECKPOINT_NAMES.items():
        prefix = "wav2vec2.encoder.pos_conv_embed."
        bound[prefix + published] = bound.pop(prefix + own)
    return Network(module=module, bindings=bound)

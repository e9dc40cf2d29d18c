"""BERT for token classification in PyTorch: ``transformers.BertForTokenClassification``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import BertConfig, BertForTokenClassification

from harness import Binding, DataInfo, Network
from harness_ner.bert_tagger import vocab_size


class Tagger(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.model = BertForTokenClassification(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # For a [B, L] mask, transformers checks for padding on the host, which makes the CPU wait for the GPU.
        mask_b11l = attention_mask.bool()[:, None, None, :]
        return self.model(input_ids=input_ids, attention_mask=mask_b11l).logits


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = Tagger(
        BertConfig(
            vocab_size=vocab_size(config, info),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act="gelu",
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=info.outputs,
            # Padding is masked, so the gradient of its embedding is zero even without `padding_idx`.
            pad_token_id=None,
            attn_implementation="sdpa",
        )
    )
    # The parameter names of the module are the canonical names.
    return Network(module=module, bindings={name: Binding(tensor) for name, tensor in module.model.named_parameters()})

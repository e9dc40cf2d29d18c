"""The LSTM text classifier in PyTorch: embedding, LSTM, max (and mean) pooling over the tokens, dense layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness import DataInfo, Network
from harness_torch.networks import bindings


class Lstm(nn.Module):
    """LSTM text classifier. Shape suffixes: B batch, L tokens, E embedding, H hidden, P pooled."""

    def __init__(self, config: Any, vocab_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        layers = config.num_layers
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.lstm = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        for layer in range(layers):
            # PyTorch's LSTM has two biases per layer, but the model has only one.
            bias = getattr(self.lstm, f"bias_hh_l{layer}")
            nn.init.zeros_(bias)
            bias.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.with_mean = config.pooling == "max-mean"
        self.classifier = nn.Linear(config.hidden_size * (2 if self.with_mean else 1), outputs)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x_ble = self.dropout(self.embedding(input_ids))
        # Padding is on the right, so it does not affect the states of valid tokens; only pooling has to ignore it.
        states_blh, _ = self.lstm(x_ble)
        padding_bl1 = attention_mask.unsqueeze(-1) == 0
        pooled_bp = states_blh.masked_fill(padding_bl1, float("-inf")).amax(1)
        if self.with_mean:
            tokens_b1 = attention_mask.sum(1, keepdim=True)
            mean_bh = states_blh.masked_fill(padding_bl1, 0).sum(1) / tokens_b1
            pooled_bp = torch.cat([pooled_bp, mean_bh], 1)
        return self.classifier(self.dropout(pooled_bp))


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = Lstm(config, int(info.details["vocab_size"]), info.outputs, dropout)
    bound = {
        name.replace("bias_ih", "bias"): binding for name, binding in bindings(module).items() if "bias_hh" not in name
    }
    return Network(module=module, bindings=bound)

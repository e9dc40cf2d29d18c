"""The Vision Transformer in PyTorch.

Suffixes of variable names give the dimensions of arrays: B is the batch size, T the number of tokens (the class token
and the patches), H the hidden size, and N the number of attention heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Binding, DataInfo, Network
from harness_vit.model import patches


class Layer(nn.Module):
    """Transformer layer with pre-layer normalization (equations 2 and 3)."""

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        hidden, self.heads, self.dropout = config.hidden_size, config.num_attention_heads, dropout
        self.attention_norm = nn.LayerNorm(hidden, config.layer_norm_eps)
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(hidden, config.layer_norm_eps)
        self.mlp_in = nn.Linear(hidden, config.intermediate_size)
        self.mlp_out = nn.Linear(config.intermediate_size, hidden)

    def forward(self, x_bth: Tensor) -> Tensor:
        x_bth = x_bth + self._drop(self._attention(self.attention_norm(x_bth)))
        y_bth = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x_bth))))
        return x_bth + self._drop(y_bth)

    def _attention(self, x_bth: Tensor) -> Tensor:
        q_bnth, k_bnth, v_bnth = (
            project(x_bth).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        rate = self.dropout if self.training else 0.0
        y_bnth = F.scaled_dot_product_attention(q_bnth, k_bnth, v_bnth, dropout_p=rate)
        return self.output(y_bnth.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def named(self) -> dict[str, nn.Module]:
        """Return the layers that have parameters, keyed by canonical name."""
        return {
            "layernorm_before": self.attention_norm,
            "attention.attention.query": self.query,
            "attention.attention.key": self.key,
            "attention.attention.value": self.value,
            "attention.output.dense": self.output,
            "layernorm_after": self.mlp_norm,
            "intermediate.dense": self.mlp_in,
            "output.dense": self.mlp_out,
        }


class VisionTransformer(nn.Module):
    def __init__(self, config: Any, tokens: int, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        hidden, size, self.dropout = config.hidden_size, config.patch_size, dropout
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden))
        self.positions = nn.Parameter(torch.zeros(1, tokens, hidden))
        self.projection = nn.Conv2d(channels, hidden, kernel_size=size, stride=size)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(hidden, config.layer_norm_eps)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches_bth = self.projection(pixel_values.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        class_b1h = self.class_token.expand(len(pixel_values), -1, -1).to(patches_bth.dtype)
        x_bth = torch.cat((class_b1h, patches_bth), dim=1) + self.positions
        x_bth = F.dropout(x_bth, self.dropout, self.training)
        for layer in self.layers:
            x_bth = layer(x_bth)
        return self.classifier(self.norm(x_bth[:, 0]))

    def bindings(self) -> dict[str, Binding]:
        named: dict[str, nn.Module] = {
            "vit.embeddings.patch_embeddings.projection": self.projection,
            "vit.layernorm": self.norm,
            "classifier": self.classifier,
        }
        for index, layer in enumerate(self.layers):
            named |= {f"vit.encoder.layer.{index}.{name}": module for name, module in layer.named().items()}
        bindings = {
            f"{name}.{part}": Binding(getattr(module, part))
            for name, module in named.items()
            for part in ("weight", "bias")
        }
        return bindings | {
            "vit.embeddings.cls_token": Binding(self.class_token),
            "vit.embeddings.position_embeddings": Binding(self.positions),
        }


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    channels = info.inputs["pixel_values"].shape[-1]
    module = VisionTransformer(config, patches(config, info) + 1, channels, info.outputs, dropout)
    return Network(module=module, bindings=module.bindings())

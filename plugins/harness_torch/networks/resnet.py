"""ResNet in PyTorch: ``transformers.ResNetForImageClassification``, with an optional stem for small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.resnet.modeling_resnet import ResNetConvLayer

from harness import DataInfo, Network
from harness_torch.networks import bindings


class ResNet(nn.Module):
    def __init__(self, config: ResNetConfig, stem: str) -> None:
        super().__init__()
        self.model = ResNetForImageClassification(config)
        if stem == "small":
            embeddings = self.model.resnet.embedder
            embeddings.embedder = ResNetConvLayer(config.num_channels, config.embedding_size, kernel_size=3, stride=1)
            embeddings.pooler = nn.Identity()
        self.to(memory_format=torch.channels_last)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values.permute(0, 3, 1, 2)).logits


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = ResNet(
        ResNetConfig(
            num_channels=info.inputs["pixel_values"].shape[-1],
            embedding_size=config.embedding_size,
            hidden_sizes=list(config.hidden_sizes),
            depths=list(config.depths),
            layer_type=config.layer_type,
            downsample_in_first_stage=config.downsample_in_first_stage,
            hidden_act="relu",
            num_labels=info.outputs,
        ),
        config.stem,
    )
    return Network(module=module, bindings=bindings(module.model))

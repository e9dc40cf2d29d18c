"""Residual networks (He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385).

Names, shapes and initial values are those of ``ResNetForImageClassification`` in `transformers`. The bottleneck layer
applies the stride in the 3x3 convolution instead of the first 1x1 convolution, as in torchvision (ResNet v1.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from harness import DataInfo, Model, Parameter

_REDUCTION = 4
"""Output width of a bottleneck divided by its inner width (He et al. 2015, figure 5)."""


class ResNetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a residual network, with the field names of ``transformers.ResNetConfig``.

    The input channels and the number of classes come from `harness.DataInfo`. Batch normalization uses eps 1e-5 and
    momentum 0.1, where the momentum is the weight of the new batch. The running variance is updated with the unbiased
    batch variance.
    """

    embedding_size: int = 64
    """Number of output channels of the stem."""
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    """Number of output channels of each stage. For bottleneck layers, these numbers must be multiples of 4."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Number of residual layers in each stage."""
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    """Kind of residual layer. ``basic``: two 3x3 convolutions. ``bottleneck``: 1x1, 3x3 and 1x1 convolutions."""
    downsample_in_first_stage: bool = False
    """True if the first stage halves the resolution. Later stages always halve the resolution."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """First layers. ``imagenet``: 7x7 convolution with stride 2, then 3x3 max pooling with stride 2. ``small``: 3x3
    convolution with stride 1 and no pooling, for images of about 32 pixels (He et al. 2015, section 4.2)."""

    def __post_init__(self) -> None:
        if not self.hidden_sizes or len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"hidden_sizes and depths must each contain one number per stage, got {len(self.hidden_sizes)} and "
                f"{len(self.depths)}"
            )
        if min(self.embedding_size, *self.hidden_sizes, *self.depths) < 1:
            raise ValueError("embedding_size, hidden_sizes and depths must be at least 1")
        if self.layer_type == "bottleneck" and any(size % _REDUCTION for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes of bottleneck layers must be multiples of {_REDUCTION}")


class _Convolution(NamedTuple):
    """A square convolution with padding ``kernel // 2`` and no bias, followed by batch normalization."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    after: int
    """Product of the strides of all preceding layers, for example 4 after the ImageNet stem."""


def _convolutions(config: ResNetConfig, channels: int) -> Iterator[_Convolution]:
    """Yield every convolution, in the order of the ``state_dict`` in `transformers`."""
    large = config.stem == "imagenet"
    yield _Convolution(
        "resnet.embedder.embedder", channels, config.embedding_size, 7 if large else 3, 2 if large else 1, 1
    )
    width, reduction = config.embedding_size, 4 if large else 1
    for stage, (size, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
        for layer in range(depth):
            stride = 2 if layer == 0 and (stage > 0 or config.downsample_in_first_stage) else 1
            name = f"resnet.encoder.stages.{stage}.layers.{layer}"
            if width != size or stride != 1:
                yield _Convolution(f"{name}.shortcut", width, size, 1, stride, reduction)
            if config.layer_type == "basic":
                yield _Convolution(f"{name}.layer.0", width, size, 3, stride, reduction)
                yield _Convolution(f"{name}.layer.1", size, size, 3, 1, reduction * stride)
            else:
                inner = size // _REDUCTION
                yield _Convolution(f"{name}.layer.0", width, inner, 1, 1, reduction)
                yield _Convolution(f"{name}.layer.1", inner, inner, 3, stride, reduction)
                yield _Convolution(f"{name}.layer.2", inner, size, 1, 1, reduction * stride)
            width, reduction = size, reduction * stride


def _reduced(pixels: int, strides: int) -> int:
    """Return the side length of feature maps, given the product of all strides. Because of padding, the result is
    rounded up."""
    return -(-pixels // strides)


class ResNet(Model[ResNetConfig]):
    """Residual network for images (He et al. 2015)."""

    name = "resnet"
    summary = "residual convolutional network (He et al. 2015), with basic or bottleneck layers"
    accepts = ("image",)
    objectives = ("classification",)
    Config = ResNetConfig
    variants = {
        # He et al. 2015, section 4.2: 6n + 2 layers with n = 3. Shortcuts that change the shape are projections, as in
        # transformers and torchvision; the paper's CIFAR networks pad with zeros instead.
        "resnet-20": {
            "embedding_size": 16,
            "hidden_sizes": (16, 32, 64),
            "depths": (3, 3, 3),
            "layer_type": "basic",
            "stem": "small",
        },
        "resnet-18": {"hidden_sizes": (64, 128, 256, 512), "depths": (2, 2, 2, 2), "layer_type": "basic"},
        "resnet-50": {"hidden_sizes": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3), "layer_type": "bottleneck"},
    }
    recipes = {
        # He et al. 2015, section 4.2, with Nesterov momentum and a cosine schedule, as is common today.
        "resnet": {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
            "schedule": "cosine",
        },
    }

    fine_tuning = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "schedule": "cosine",
    }
    base = "resnet."
    head = ("classifier.",)
    checkpoint_requires = {"hidden_act": "relu", "downsample_in_bottleneck": False}

    def parameters(self, config: ResNetConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return the canonical arrays for ``pixel_values`` of shape ``[H, W, C]``.

        Convolutions are initialized from a normal distribution with std sqrt(2 / (kernel^2 outputs)) (He et al. 2015b,
        arXiv:1502.01852, fan-out). The classifier is initialized from U(-1/sqrt(in), 1/sqrt(in)). Both initializations
        are the same as in `transformers`.
        """
        channels = info.inputs["pixel_values"].shape[-1]
        parameters = []
        for conv in _convolutions(config, channels):
            norm, width = f"{conv.name}.normalization", (conv.outputs,)
            parameters += [
                Parameter(
                    name=f"{conv.name}.convolution.weight",
                    shape=(conv.outputs, conv.inputs, conv.kernel, conv.kernel),
                    init="normal",
                    scale=math.sqrt(2 / (conv.outputs * conv.kernel**2)),
                    decay=True,
                ),
                Parameter(name=f"{norm}.weight", shape=width, init="ones"),
                Parameter(name=f"{norm}.bias", shape=width),
                Parameter(name=f"{norm}.running_mean", shape=width, trainable=False),
                Parameter(name=f"{norm}.running_var", shape=width, init="ones", trainable=False),
            ]
        features = config.hidden_sizes[-1]
        bound = 1 / math.sqrt(features)
        return [
            *parameters,
            Parameter(
                name="classifier.1.weight", shape=(info.outputs, features), init="uniform", scale=bound, decay=True
            ),
            Parameter(name="classifier.1.bias", shape=(info.outputs,), init="uniform", scale=bound),
        ]

    def flops_per_sample(self, config: ResNetConfig, info: DataInfo) -> float:
        """Return the FLOPs of the forward pass of one example, counting each multiply-add as two operations.

        A convolution with an output of H' x W' pixels takes ``2 H' W' kernel^2 inputs outputs`` FLOPs, and the
        classifier takes ``2 features classes`` FLOPs. Normalization, activations, pooling and residual sums are not
        counted, as in published numbers: resnet-50 at 224 x 224 has 4.09e9 multiply-adds.
        """
        height, width, channels = info.inputs["pixel_values"].shape
        flops = 2 * config.hidden_sizes[-1] * info.outputs
        for conv in _convolutions(config, channels):
            strides = conv.after * conv.stride
            area = _reduced(height, strides) * _reduced(width, strides)
            flops += 2 * area * conv.kernel**2 * conv.inputs * conv.outputs
        return float(flops)

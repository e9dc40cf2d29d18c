"""ResNet in TensorFlow, equivalent to ``transformers.ResNetForImageClassification``, with a stem for small images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from harness import DataInfo, Network
from harness_tensorflow.layers import BatchNorm, Convolution, Dense, compute_dtype, prefixed


class Block(tf.Module):
    """Convolution without bias, batch normalization, and optionally ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs, (kernel, kernel), stride, padding=kernel // 2)
        self.normalization = BatchNorm(outputs)
        self._relu = relu
        self.bindings = {
            **prefixed("convolution", self.convolution.bindings),
            **prefixed("normalization", self.normalization.bindings),
        }

    def __call__(self, x: Any, training: bool) -> Any:
        x = self.normalization(self.convolution(x), training)
        return tf.nn.relu(x) if self._relu else x


class Layer(tf.Module):
    """Residual layer: two 3x3 convolutions, or a bottleneck that has a quarter of the width and applies the stride in
    its 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, layer_type: str) -> None:
        super().__init__()
        if layer_type == "basic":
            self.blocks = [Block(inputs, outputs, 3, stride), Block(outputs, outputs, 3, relu=False)]
        else:
            inner = outputs // 4
            self.blocks = [
                Block(inputs, inner, 1),
                Block(inner, inner, 3, stride),
                Block(inner, outputs, 1, relu=False),
            ]
        self.shortcut = Block(inputs, outputs, 1, stride, relu=False) if inputs != outputs or stride != 1 else None
        self.bindings = prefixed("shortcut", self.shortcut.bindings) if self.shortcut else {}
        for index, block in enumerate(self.blocks):
            self.bindings |= prefixed(f"layer.{index}", block.bindings)

    def __call__(self, x: Any, training: bool) -> Any:
        residual = self.shortcut(x, training) if self.shortcut else x
        for block in self.blocks:
            x = block(x, training)
        return tf.nn.relu(x + residual)


class ResNet(tf.Module):
    def __init__(self, config: Any, channels: int, outputs: int) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        self._pool = config.stem == "imagenet"
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        self.embedder = Block(channels, config.embedding_size, kernel, stride)
        self.layers = []
        self.bindings = prefixed("resnet.embedder.embedder", self.embedder.bindings)
        width = config.embedding_size
        for stage, (size, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            for index in range(depth):
                stride = 2 if index == 0 and (stage > 0 or config.downsample_in_first_stage) else 1
                layer = Layer(width, size, stride, config.layer_type)
                self.layers.append(layer)
                self.bindings |= prefixed(f"resnet.encoder.stages.{stage}.layers.{index}", layer.bindings)
                width = size
        self.classifier = Dense(width, outputs)
        self.bindings |= prefixed("classifier.1", self.classifier.bindings)

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        x_bhwc = self.embedder(tf.cast(inputs["pixel_values"], self._dtype), training)
        if self._pool:
            x_bhwc = tf.nn.max_pool2d(x_bhwc, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])
        for layer in self.layers:
            x_bhwc = layer(x_bhwc, training)
        return tf.cast(self.classifier(tf.reduce_mean(x_bhwc, [1, 2])), tf.float32)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = ResNet(config, info.inputs["pixel_values"].shape[-1], info.outputs)
    return Network(module=module, bindings=module.bindings)

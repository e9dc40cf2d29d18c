"""wav2vec 2.0 (Baevski et al. 2020) as a classifier for raw waveforms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from harness import CombinationError, DataInfo, Model, Parameter


class Wav2Vec2Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a wav2vec 2.0 model, with the field names of ``transformers.Wav2Vec2Config``.

    The defaults correspond to ``facebook/wav2vec2-base``.
    """

    hidden_size: int = 768
    """Width of the frame representations. The width must be a multiple of `num_attention_heads` and
    `num_conv_pos_embedding_groups`."""
    num_hidden_layers: int = 12
    """Number of Transformer layers."""
    num_attention_heads: int = 12
    """Number of attention heads per layer."""
    intermediate_size: int = 3072
    """Width of the feed-forward layers."""
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    """Output channels of each convolution of the feature encoder."""
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel size of each convolution, in samples of its input."""
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Stride of each convolution, in samples of its input."""
    conv_bias: bool = False
    """True if the feature encoder's convolutions have a bias."""
    feat_extract_norm: Literal["group", "layer"] = "group"
    """Normalization in the feature encoder. ``group``: instance normalization over time, only after the first
    convolution. ``layer``: layer normalization over channels after every convolution. The epsilon of both
    normalizations is always 1e-5."""
    num_conv_pos_embeddings: int = 128
    """Kernel size of the positional convolution, in frames. The input of the positional convolution is padded by half
    the kernel size on both sides. If the kernel size is even, the last output frame is dropped."""
    num_conv_pos_embedding_groups: int = 16
    """Number of groups in the positional convolution."""
    do_stable_layer_norm: bool = False
    """If True, normalization is applied before each block (pre-norm). If False, normalization is applied after each
    block (post-norm)."""
    classifier_proj_size: int = 256
    """Width of the projection before the classifier."""
    layer_norm_eps: float = 1e-5
    """Constant added to the variance in layer normalization. The feature encoder's convolutions do not use this
    constant."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise ValueError("conv_dim, conv_kernel and conv_stride must each contain one number per convolution")
        sizes = (self.hidden_size, self.num_attention_heads, self.intermediate_size, self.classifier_proj_size)
        positional = (self.num_conv_pos_embeddings, self.num_conv_pos_embedding_groups)
        if min(*sizes, *positional, *self.conv_dim, *self.conv_kernel, *self.conv_stride) < 1:
            raise ValueError("sizes, kernels, strides, heads and groups must be at least 1")
        if self.num_hidden_layers < 0:
            raise ValueError("num_hidden_layers must not be negative")
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, name):
                raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {name} {getattr(self, name)}")


def frames(config: Wav2Vec2Config, samples: int) -> list[int]:
    """Return the output length of each convolution for a waveform of length `samples`. The last element is the length
    of the encoder's input.

    Raises `harness.CombinationError` if the waveform is too short for one frame.
    """
    lengths = []
    length = samples
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        if length < 1:
            raise CombinationError(
                f"waveforms of {samples} samples are too short for wav2vec2's {len(config.conv_kernel)} convolutions; "
                "use longer waveforms (--set task.seconds=SECONDS) or fewer convolutions"
            )
        lengths.append(length)
    return lengths


def _dense(name: str, outputs: int, inputs: int) -> Iterator[Parameter]:
    yield Parameter(name=f"{name}.weight", shape=(outputs, inputs), init="normal", scale=0.02, decay=True)
    yield Parameter(name=f"{name}.bias", shape=(outputs,))


def _norm(name: str, size: int) -> Iterator[Parameter]:
    yield Parameter(name=f"{name}.weight", shape=(size,), init="ones")
    yield Parameter(name=f"{name}.bias", shape=(size,))


def _feature_encoder(config: Wav2Vec2Config) -> Iterator[Parameter]:
    """Yield the parameters of the convolutions and of the feature projection.

    As in the reference implementation, kernels are drawn from a normal distribution scaled by the fan-in (He et al.
    2015). Biases are drawn from PyTorch's default uniform distribution.
    """
    channels = 1
    for layer, (width, kernel) in enumerate(zip(config.conv_dim, config.conv_kernel, strict=True)):
        name = f"wav2vec2.feature_extractor.conv_layers.{layer}"
        fan_in = channels * kernel
        yield Parameter(
            name=f"{name}.conv.weight",
            shape=(width, channels, kernel),
            init="normal",
            scale=math.sqrt(2 / fan_in),
            decay=True,
        )
        if config.conv_bias:
            yield Parameter(name=f"{name}.conv.bias", shape=(width,), init="uniform", scale=1 / math.sqrt(fan_in))
        if config.feat_extract_norm == "layer" or layer == 0:
            yield from _norm(f"{name}.layer_norm", width)
        channels = width

    name = "wav2vec2.feature_projection"
    bound = 1 / math.sqrt(channels)
    yield from _norm(f"{name}.layer_norm", channels)
    yield Parameter(
        name=f"{name}.projection.weight",
        shape=(config.hidden_size, channels),
        init="uniform",
        scale=bound,
        decay=True,
    )
    yield Parameter(name=f"{name}.projection.bias", shape=(config.hidden_size,), init="uniform", scale=bound)


def _positional_convolution(config: Wav2Vec2Config) -> Iterator[Parameter]:
    """Yield the parameters of the positional convolution.

    The kernel is weight-normalized (Salimans and Kingma 2016) over the first two axes, that is, ``weight = g v / |v|``
    for each kernel position. The reference implementation draws the weight with standard deviation ``2 / sqrt(kernel *
    hidden)`` and sets g to the norm of v at each position. The constant used here approximates the expected value of
    this norm, ``std * sqrt(n)`` with n elements per position. The norms drawn by the reference implementation deviate
    from the expected value by about ``1 / sqrt(2 n)`` (0.4% for the base variant and 1.5% for the tiny variant).
    """
    name = "wav2vec2.encoder.pos_conv_embed.conv"
    hidden, kernel = config.hidden_size, config.num_conv_pos_embeddings
    inputs = hidden // config.num_conv_pos_embedding_groups
    std = 2 / math.sqrt(kernel * hidden)
    yield Parameter(
        name=f"{name}.weight_g", shape=(1, 1, kernel), init="constant", scale=std * math.sqrt(hidden * inputs)
    )
    yield Parameter(name=f"{name}.weight_v", shape=(hidden, inputs, kernel), init="normal", scale=std, decay=True)
    yield Parameter(name=f"{name}.bias", shape=(hidden,))


class Wav2Vec2(Model[Wav2Vec2Config]):
    """wav2vec 2.0 for sequence classification (Baevski et al. 2020).

    The network consists of convolutions on the waveform, a Transformer, a projection, the mean over frames and a
    classifier. Names, shapes and initialization are those of ``transformers.Wav2Vec2ForSequenceClassification``, with
    two exceptions. The weight-normalization parameters of the positional convolution are named as in published
    checkpoints (``weight_g``, ``weight_v``). The embedding for masked frames is omitted, because only pretraining and
    SpecAugment use it.

    Input: ``input_values``, float32 ``[B, samples]``, zero-padded. There is no attention mask, because the feature
    extractor of ``facebook/wav2vec2-base`` does not return one. GELU is computed exactly, without the tanh
    approximation.
    """

    name = "wav2vec2"
    summary = "wav2vec 2.0: convolutions and a Transformer on the raw waveform (Baevski et al. 2020)"
    accepts = ("waveform",)
    objectives = ("classification", "regression")
    Config = Wav2Vec2Config
    has_dropout = True
    variants = {
        "wav2vec2-tiny": {
            "hidden_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "conv_dim": (32, 32, 64, 64, 64, 64),
            "conv_kernel": (10, 3, 3, 3, 3, 3),
            "conv_stride": (5, 2, 2, 2, 2, 2),
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "classifier_proj_size": 96,
        },
        "wav2vec2-base": {},
    }
    recipes = {
        # From the keyword spotting example for wav2vec2-base in transformers, examples/pytorch/audio-classification.
        "wav2vec2-base": {
            "epochs": 5,
            "batch_size": 32,
            "optimizer": "adamw",
            "learning_rate": 3e-5,
            "schedule": "linear",
            "warmup_fraction": 0.1,
            "dropout": 0.1,
        },
    }

    fine_tuning = recipes["wav2vec2-base"]
    base = "wav2vec2."
    head = ("projector.", "classifier.")
    legacy_names = {
        "conv.parametrizations.weight.original0": "conv.weight_g",
        "conv.parametrizations.weight.original1": "conv.weight_v",
    }
    checkpoint_requires = {
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "add_adapter": False,
        "use_weighted_layer_sum": False,
    }

    def parameters(self, config: Wav2Vec2Config, info: DataInfo) -> tuple[Parameter, ...]:
        """Return all canonical arrays.

        Raises `harness.CombinationError` if the waveform is too short for the convolutions.
        """
        frames(config, info.inputs["input_values"].shape[0])
        hidden = config.hidden_size
        parameters = [
            *_feature_encoder(config),
            *_positional_convolution(config),
            *_norm("wav2vec2.encoder.layer_norm", hidden),
        ]
        for layer in range(config.num_hidden_layers):
            name = f"wav2vec2.encoder.layers.{layer}"
            for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
                parameters += _dense(f"{name}.attention.{projection}", hidden, hidden)
            parameters += _norm(f"{name}.layer_norm", hidden)
            parameters += _dense(f"{name}.feed_forward.intermediate_dense", config.intermediate_size, hidden)
            parameters += _dense(f"{name}.feed_forward.output_dense", hidden, config.intermediate_size)
            parameters += _norm(f"{name}.final_layer_norm", hidden)
        parameters += _dense("projector", config.classifier_proj_size, hidden)
        parameters += _dense("classifier", info.outputs, config.classifier_proj_size)
        return tuple(parameters)

    def flops_per_sample(self, config: Wav2Vec2Config, info: DataInfo) -> float:
        """Return the FLOPs of the forward pass of one example, counting each multiply-add as two operations.

        Convolution i has kernel size K_i, C_i channels and output length T_i (C_0 = 1). With encoder length T, hidden
        size H, intermediate size I, positional kernel size K in G groups, projector size P, O outputs and N layers::

            sum_i 2 T_i K_i C_(i-1) C_i                      feature encoder
            + 2 T C H                                        feature projection
            + 2 T K H H / G                                  positional convolution
            + N (8 T H H + 4 T T H + 4 T H I)                attention projections, attention, feed-forward
            + 2 T H P + 2 P O                                projector at every frame, classifier

        C is the number of channels of the last convolution. Normalization, activations, softmax, biases and additions
        are not counted.
        """
        lengths = frames(config, info.inputs["input_values"].shape[0])
        channels = (1, *config.conv_dim)
        convolutions = sum(
            2 * length * kernel * before * after
            for length, kernel, before, after in zip(lengths, config.conv_kernel, channels, channels[1:], strict=False)
        )
        t, h, p = lengths[-1], config.hidden_size, config.classifier_proj_size
        positional = 2 * t * config.num_conv_pos_embeddings * h * h // config.num_conv_pos_embedding_groups
        layer = 8 * t * h * h + 4 * t * t * h + 4 * t * h * config.intermediate_size
        head = 2 * t * h * p + 2 * p * info.outputs
        return float(convolutions + 2 * t * channels[-1] * h + positional + config.num_hidden_layers * layer + head)

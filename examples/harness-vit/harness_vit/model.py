"""The Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): its sizes, arrays and computational cost.

Parameter names and shapes match those of ``transformers.ViTForImageClassification``, so its checkpoints can be loaded
as canonical weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from harness import DataInfo, Model, Parameter, UsageError


class VitConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a Vision Transformer, with the field names of ``transformers.ViTConfig``.

    The image size, the number of channels and the number of classes come from `harness.DataInfo`.
    """

    patch_size: int = 16
    """Height and width of a patch, in pixels. The height and the width of the images must be multiples of this size."""
    hidden_size: int = 768
    """Width of the patch representations. The width must be a multiple of `num_attention_heads`."""
    num_hidden_layers: int = 12
    """Number of Transformer layers."""
    num_attention_heads: int = 12
    """Number of attention heads per layer."""
    intermediate_size: int = 3072
    """Width of the hidden layer of each MLP."""
    layer_norm_eps: float = 1e-12
    """Constant added to the variance in layer normalization."""
    initializer_range: float = 0.02
    """Standard deviation of the initial values in matrices and embeddings."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads {self.num_attention_heads}"
            )


def _size(patch: int, layers: int, hidden: int, heads: int) -> dict[str, int]:
    """Return the sizes of a variant. The hidden layer of each MLP is four times as wide as the representations."""
    return {
        "patch_size": patch,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
    }


class VisionTransformer(Model[VitConfig]):
    """Vision Transformer (Dosovitskiy et al. 2021)."""

    name = "vit"
    summary = "Transformer encoder on image patches with a class token (Dosovitskiy et al. 2021)"
    accepts = ("image",)
    objectives = ("classification",)
    Config = VitConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "vit-micro-4": _size(4, 4, 64, 4),  # for images of about 32 pixels
        "vit-base-16": _size(16, 12, 768, 12),  # table 1
        "vit-base-32": _size(32, 12, 768, 12),
        "vit-large-16": _size(16, 24, 1024, 16),
    }
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Decoupled weight decay, warmup, a cosine schedule and clipping at norm 1, as in appendix B.1, but with a
        # higher learning rate, which suits small models and few epochs.
        "vit": {
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup_fraction": 0.1,
            "clip_norm": 1.0,
        },
    }
    has_dropout = True
    fine_tuning: ClassVar[Mapping[str, Any]] = {  # appendix B.1.1
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "clip_norm": 1.0,
    }
    base = "vit."
    head = ("classifier.",)
    checkpoint_requires: ClassVar[Mapping[str, Any]] = {"hidden_act": "gelu", "qkv_bias": True}

    def parameters(self, config: VitConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return all parameters of ``ViTForImageClassification`` for ``pixel_values`` of shape ``[H, W, C]``.

        As in `transformers`, matrices and embeddings are drawn from a truncated normal distribution, biases are 0, and
        normalization weights are 1. Raises `harness.UsageError` if the images cannot be divided into patches.
        """
        return tuple(_parameters(config, info))

    def flops_per_sample(self, config: VitConfig, info: DataInfo) -> float:
        """Return the FLOPs of the forward pass for one image, counting each multiply-add as two operations.

        With P patches of p x p pixels and C channels, T = P + 1 tokens, hidden size H, MLP size I, N layers and K
        classes::

            2 P p^2 C H + N (8 T H^2 + 4 T^2 H + 4 T H I) + 2 H K

        The first term is the patch projection and the last term is the classifier. For each layer, the terms in
        parentheses are, in order, the query, key, value and output projections; the attention scores and the weighted
        sum; and the MLP. Normalization, activations and softmax are not counted.
        """
        p, t = patches(config, info), patches(config, info) + 1
        h, i = config.hidden_size, config.intermediate_size
        channels = info.inputs["pixel_values"].shape[-1]
        layer = 8 * t * h**2 + 4 * t**2 * h + 4 * t * h * i
        projection = 2 * p * config.patch_size**2 * channels * h
        return float(projection + config.num_hidden_layers * layer + 2 * h * info.outputs)


def patches(config: VitConfig, info: DataInfo) -> int:
    """Return the number of patches in an image.

    Raises `harness.UsageError` if the height or the width of the images is not a multiple of the patch size.
    """
    height, width, _ = info.inputs["pixel_values"].shape
    size = config.patch_size
    if height % size or width % size:
        raise UsageError(
            f"images of {height}x{width} pixels cannot be divided into patches of {size}x{size}; set "
            f"model.patch_size to a divisor of the height and width, or task.image_size to a multiple of {size}"
        )
    return (height // size) * (width // size)


def _parameters(config: VitConfig, info: DataInfo) -> Iterator[Parameter]:
    hidden, std = config.hidden_size, config.initializer_range

    def drawn(name: str, *shape: int, decay: bool) -> Parameter:
        return Parameter(name=name, shape=shape, init="truncated_normal", scale=std, decay=decay)

    def dense(name: str, inputs: int, units: int) -> Iterator[Parameter]:
        yield drawn(f"{name}.weight", units, inputs, decay=True)
        yield Parameter(name=f"{name}.bias", shape=(units,))

    def norm(name: str) -> Iterator[Parameter]:
        yield Parameter(name=f"{name}.weight", shape=(hidden,), init="ones")
        yield Parameter(name=f"{name}.bias", shape=(hidden,))

    channels, size = info.inputs["pixel_values"].shape[-1], config.patch_size
    yield drawn("vit.embeddings.cls_token", 1, 1, hidden, decay=False)
    yield drawn("vit.embeddings.position_embeddings", 1, patches(config, info) + 1, hidden, decay=False)
    yield drawn("vit.embeddings.patch_embeddings.projection.weight", hidden, channels, size, size, decay=True)
    yield Parameter(name="vit.embeddings.patch_embeddings.projection.bias", shape=(hidden,))
    for index in range(config.num_hidden_layers):
        layer = f"vit.encoder.layer.{index}"
        yield from norm(f"{layer}.layernorm_before")
        for projection in ("query", "key", "value"):
            yield from dense(f"{layer}.attention.attention.{projection}", hidden, hidden)
        yield from dense(f"{layer}.attention.output.dense", hidden, hidden)
        yield from norm(f"{layer}.layernorm_after")
        yield from dense(f"{layer}.intermediate.dense", hidden, config.intermediate_size)
        yield from dense(f"{layer}.output.dense", config.intermediate_size, hidden)
    yield from norm("vit.layernorm")
    yield from dense("classifier", hidden, info.outputs)

"""BERT for sequence classification (Devlin et al. 2019, arXiv:1810.04805).

The small variants are the compact models of Turc et al. 2019 (arXiv:1908.08962). Parameter names and shapes are those
of ``transformers.BertForSequenceClassification``. Checkpoints of this class can therefore be loaded as canonical
weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from harness import DataInfo, Model, Parameter, UsageError
from harness_nlp.models import data_vocab_size, sequence_length


class BertConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a BERT model, with the field names of ``transformers.BertConfig``."""

    hidden_size: int = 768
    """Width of the token representations. The width must be a multiple of `num_attention_heads`."""
    num_hidden_layers: int = 12
    """Number of Transformer layers."""
    num_attention_heads: int = 12
    """Number of attention heads per layer."""
    intermediate_size: int = 3072
    """Width of the feed-forward layers."""
    vocab_size: int | None = None
    """Number of token ids. If None, the number of token ids in the data (`DataInfo.details`) is used."""
    max_position_embeddings: int = 512
    """Longest sequence, in tokens."""
    type_vocab_size: int = 2
    """Number of token type embeddings. All tokens have type 0. Embeddings of the other types exist only so that
    checkpoints can be loaded."""
    layer_norm_eps: float = 1e-12
    """Constant added to the variance in layer normalization."""
    initializer_range: float = 0.02
    """Standard deviation for initializing matrices and embeddings."""

    def __post_init__(self) -> None:
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise ValueError(
                f"vocab_size must be at least 1, got {self.vocab_size}; omit it to use the size in the data"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.layer_norm_eps <= 0 or self.initializer_range <= 0:
            raise ValueError("layer_norm_eps and initializer_range must be positive")


def _size(layers: int, hidden: int) -> dict[str, int]:
    """Return the sizes of a published variant.

    Each attention head has 64 units. The feed-forward layers have a width of ``4 * hidden_size``.
    """
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }


class Bert(Model[BertConfig]):
    """BERT for sequence classification (Devlin et al. 2019)."""

    name = "bert"
    summary = "Transformer encoder with a classifier on the first token's pooled state (Devlin et al. 2019)"
    accepts = ("tokens",)
    objectives = ("classification", "regression")
    Config = BertConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bert-tiny": _size(2, 128),
        "bert-mini": _size(4, 256),
        "bert-small": _size(4, 512),
        "bert-base": _size(12, 768),
    }
    has_dropout = True
    fine_tuning: ClassVar[Mapping[str, Any]] = {  # Devlin et al. 2019, appendix A.3
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 5e-5,
    }
    base = "bert."
    head = ("classifier.", "bert.pooler.")
    legacy_names: ClassVar[Mapping[str, str]] = {
        "LayerNorm.gamma": "LayerNorm.weight",
        "LayerNorm.beta": "LayerNorm.bias",
    }
    checkpoint_requires: ClassVar[Mapping[str, Any]] = {
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    checkpoint_sizes: ClassVar[Mapping[str, str]] = {
        "vocab_size": "bert.embeddings.word_embeddings.weight",
        "max_position_embeddings": "bert.embeddings.position_embeddings.weight",
    }

    def parameters(self, config: BertConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return all parameters of ``BertForSequenceClassification``.

        The initialization is the same as in the BERT paper's code. Matrices and embeddings are drawn from a truncated
        normal distribution, biases are 0, and normalization weights are 1. Raises `harness.UsageError` if the data have
        longer sequences or more token ids than `config` supports.
        """
        return tuple(_parameters(config, _vocab_size(config, info), info.outputs))

    def flops_per_sample(self, config: BertConfig, info: DataInfo) -> float:
        """Return the FLOPs of the forward pass of one example, counting each multiply-add as two operations.

        With T tokens (including padding), hidden size H, feed-forward size I, N layers and C outputs::

            N (8 T H^2 + 4 T^2 H + 4 T H I) + 2 H^2 + 2 H C

        In this order, the terms are the FLOPs of the query, key, value and output projections; the attention scores and
        the weighted sum of the values; the feed-forward layers; the pooler; and the classifier. Embedding lookups,
        normalization, activations and softmax are not counted.
        """
        t, h, i = sequence_length(info), config.hidden_size, config.intermediate_size
        layer = 8 * t * h**2 + 4 * t**2 * h + 4 * t * h * i
        return float(config.num_hidden_layers * layer + 2 * h**2 + 2 * h * info.outputs)


def _vocab_size(config: BertConfig, info: DataInfo) -> int:
    length, ids = sequence_length(info), data_vocab_size(info)
    if length > config.max_position_embeddings:
        raise UsageError(
            f"bert has {config.max_position_embeddings} positions, but the data have sequences of {length} tokens; "
            f"set model.max_position_embeddings={length} or a smaller task.max_length"
        )
    if config.vocab_size is not None and config.vocab_size < ids:
        raise UsageError(
            f"model.vocab_size is {config.vocab_size}, but the data have {ids} token ids; omit it, "
            f"or set it to at least {ids}"
        )
    return config.vocab_size or ids


def _parameters(config: BertConfig, vocab_size: int, outputs: int) -> Iterator[Parameter]:
    hidden, std = config.hidden_size, config.initializer_range

    def matrix(name: str, *shape: int) -> Parameter:
        return Parameter(name=f"{name}.weight", shape=shape, init="truncated_normal", scale=std, decay=True)

    def dense(name: str, inputs: int, units: int) -> Iterator[Parameter]:
        yield matrix(name, units, inputs)
        yield Parameter(name=f"{name}.bias", shape=(units,))

    def norm(name: str) -> Iterator[Parameter]:
        yield Parameter(name=f"{name}.weight", shape=(hidden,), init="ones")
        yield Parameter(name=f"{name}.bias", shape=(hidden,))

    yield matrix("bert.embeddings.word_embeddings", vocab_size, hidden)
    yield matrix("bert.embeddings.position_embeddings", config.max_position_embeddings, hidden)
    yield matrix("bert.embeddings.token_type_embeddings", config.type_vocab_size, hidden)
    yield from norm("bert.embeddings.LayerNorm")
    for index in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{index}"
        for projection in ("query", "key", "value"):
            yield from dense(f"{layer}.attention.self.{projection}", hidden, hidden)
        yield from dense(f"{layer}.attention.output.dense", hidden, hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from dense(f"{layer}.intermediate.dense", hidden, config.intermediate_size)
        yield from dense(f"{layer}.output.dense", config.intermediate_size, hidden)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from dense("bert.pooler.dense", hidden, hidden)
    yield from dense("classifier", hidden, outputs)

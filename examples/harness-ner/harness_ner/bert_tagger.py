"""BERT for token classification (Devlin et al. 2019, arXiv:1810.04805).

The small variants are the compact models of Turc et al. 2019 (arXiv:1908.08962). The names and shapes of the parameters
match those of ``transformers.BertForTokenClassification``. Checkpoints of this class, or of its encoder alone, can
therefore be loaded as canonical weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from harness import DataInfo, Model, Parameter, UsageError


class BertTaggerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a BERT model, with the field names of ``transformers.BertConfig``."""

    hidden_size: int = 768
    """Width of the token representations, which must be a multiple of `num_attention_heads`."""
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
    """Number of token type embeddings. All tokens have type 0. The embeddings of other types exist only so that
    checkpoints can be loaded."""
    layer_norm_eps: float = 1e-12
    """Constant added to the variance in layer normalization."""
    initializer_range: float = 0.02
    """Standard deviation of the initial values in matrices and embeddings."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads {self.num_attention_heads}"
            )


def _size(layers: int, hidden: int) -> dict[str, int]:
    """Return the sizes of a published variant.

    Each attention head has 64 units, and the feed-forward layers have a width of ``4 * hidden_size``.
    """
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }


class BertTagger(Model[BertTaggerConfig]):
    """BERT for token classification (Devlin et al. 2019)."""

    name = "bert-tagger"
    summary = "Transformer encoder with a classifier on the last state of each token (Devlin et al. 2019)"
    accepts = ("tagged-tokens",)
    objectives = ("token_classification",)
    Config = BertTaggerConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bert-tagger-tiny": _size(2, 128),
        "bert-tagger-mini": _size(4, 256),
        "bert-tagger-small": _size(4, 512),
        "bert-tagger-base": _size(12, 768),
    }
    has_dropout = True
    fine_tuning: ClassVar[Mapping[str, Any]] = {  # Devlin et al. 2019, appendix A.3
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 5e-5,
    }
    checkpoint_type = "bert"
    base = "bert."
    head = ("classifier.",)
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

    def parameters(self, config: BertTaggerConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return all parameters of ``BertForTokenClassification``.

        The initialization is the same as in the BERT paper's code. Matrices and embeddings are drawn from a truncated
        normal distribution, biases are 0, and normalization weights are 1. Raises `harness.UsageError` if the data have
        longer sequences or more token ids than `config` allows.
        """
        return tuple(_parameters(config, vocab_size(config, info), info.outputs))

    def flops_per_sample(self, config: BertTaggerConfig, info: DataInfo) -> float:
        """Return the number of FLOPs of the forward pass for one example. A multiply-add counts as two FLOPs.

        With T tokens (including padding), hidden size H, feed-forward size I, N layers and C outputs::

            N (8 T H^2 + 4 T^2 H + 4 T H I) + 2 T H C

        The terms are, in order: the query, key, value and output projections; the attention scores and the weighted
        sum; the feed-forward layers; and the classifier. Embedding lookups, normalization, activations and softmax are
        not counted.
        """
        t, h, i = _length(info), config.hidden_size, config.intermediate_size
        layer = 8 * t * h**2 + 4 * t**2 * h + 4 * t * h * i
        return float(config.num_hidden_layers * layer + 2 * t * h * info.outputs)


def vocab_size(config: BertTaggerConfig, info: DataInfo) -> int:
    """Return the number of word embeddings.

    Raises `harness.UsageError` if the data have longer sequences or more token ids than `config` allows.
    """
    length, ids = _length(info), int(info.details["vocab_size"])
    if length > config.max_position_embeddings:
        raise UsageError(
            f"bert-tagger has {config.max_position_embeddings} positions, but the data have sequences of {length} "
            f"tokens; set model.max_position_embeddings={length} or a smaller task.max_length"
        )
    if config.vocab_size is not None and config.vocab_size < ids:
        raise UsageError(
            f"model.vocab_size is {config.vocab_size}, but the data have {ids} token ids; omit it, "
            f"or set it to at least {ids}"
        )
    return config.vocab_size or ids


def _length(info: DataInfo) -> int:
    """Return the number of tokens in one padded example."""
    return info.inputs["input_ids"].shape[0]


def _parameters(config: BertTaggerConfig, vocab_size: int, outputs: int) -> Iterator[Parameter]:
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
    yield from dense("classifier", hidden, outputs)

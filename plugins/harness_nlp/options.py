"""Options for the ``nlp`` task."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class NlpOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``nlp`` task."""

    vocab_size: int = 4000
    """Maximum number of tokens in the vocabulary, including special tokens. The vocabulary must have at least 16
    tokens."""
    vocabulary: Literal["wordpiece", "word"] = "wordpiece"
    """Type of vocabulary to learn from the training split. ``wordpiece``: pieces of words. ``word``: whole words that
    occur at least twice. All other words become ``[UNK]``."""
    word_dropout: float = 0.0
    """Fraction of the tokens in a training batch that are replaced with ``[UNK]`` (Bowman et al. 2016, CoNLL, section
    3.1). The fraction must be at least 0 and below 1. Special tokens are never replaced."""
    max_length: int | None = None
    """Number of tokens per example, including ``[CLS]`` and ``[SEP]``. At least 3 tokens are required. If None, the
    length is chosen to fit 99% of the training texts. This default is rounded up to a multiple of 8, and is limited to
    512 tokens and to the checkpoint's number of positions."""
    lowercase: bool = True
    """True to lowercase texts before tokenization."""
    tokenizer: str | None = None
    """Path of a folder with a pretrained WordPiece tokenizer (``tokenizer.json`` or ``vocab.txt``). The tokenizer is
    used unchanged, and `vocabulary`, `vocab_size` and `lowercase` are ignored. If None, a vocabulary is learned."""

    def __post_init__(self) -> None:
        if self.vocab_size < 16:
            raise ValueError(f"vocab_size must be at least 16, got {self.vocab_size}")
        if self.max_length is not None and self.max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a token and [SEP]), got {self.max_length}")
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout must be at least 0 and below 1, got {self.word_dropout}")

"""Checks that a checkpoint's sizes are compatible with its tokenizer and the options of the ``nlp`` task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness import UsageError

if TYPE_CHECKING:
    from harness_nlp.options import NlpOptions


class _Sizes(Struct, frozen=True):
    """Sizes from ``config.json``. A size that is missing from the file is None."""

    vocab_size: int | None = None
    max_position_embeddings: int | None = None


def sizes(folder: Path) -> _Sizes:
    """Return the sizes in a checkpoint's ``config.json``. All sizes are None if the file does not exist.

    Raises `harness.UsageError` if the file cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        return _Sizes()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Sizes)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {str(error).replace('$.', '')}; fix the file") from None


def check(folder: Path, options: NlpOptions) -> None:
    """Raise `harness.UsageError` if the checkpoint has too few embeddings for the tokenizer.

    `harness.UsageError` is also raised if ``options.max_length`` is larger than the checkpoint's number of positions.
    """
    from harness_nlp import text

    own = sizes(folder)
    if options.max_length is not None and (own.max_position_embeddings or options.max_length) < options.max_length:
        raise UsageError(
            f"task.max_length is {options.max_length}, but the checkpoint {folder} has {own.max_position_embeddings} "
            f"positions; set task.max_length={own.max_position_embeddings} or lower, or use a checkpoint with more "
            "positions"
        )
    if options.tokenizer is None:
        raise UsageError(
            f"task.tokenizer is null, but the embeddings of the checkpoint {folder} belong to its own tokenizer; "
            "remove this override"
        )
    tokens = len(text.pretrained_vocabulary(options.tokenizer))
    if own.vocab_size is not None and own.vocab_size < tokens:
        raise UsageError(
            f"the tokenizer in {options.tokenizer} has {tokens} token ids, but the checkpoint {folder} has only "
            f"{own.vocab_size} embeddings (vocab_size in its config.json); resize the embeddings of the checkpoint "
            f"with model.resize_token_embeddings({tokens}) and save_pretrained in transformers, or use its original "
            "tokenizer"
        )

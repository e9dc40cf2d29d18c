"""Conversion of texts to token ids, with the steps `clean`, `learn_vocabulary` or `learn_words`, and `encode`.

As in BERT, a WordPiece vocabulary is used. Each word is split into the longest pieces that the vocabulary contains.
Every piece after the first starts with ``##``. A vocabulary of whole words is a WordPiece vocabulary without pieces
that start with ``##``.

Words are separated by spaces and punctuation. A sentence in a script without spaces, a DNA sequence or a URL can
therefore be one long word. Published tokenizers convert words longer than 100 characters to ``[UNK]``. To save time,
this module splits words that are longer than `LONGEST_WORD` characters into parts of this length. The time to tokenize
a word grows faster than quadratically with its length.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import DataError, read_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAD, UNKNOWN, START, END = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CONTINUATION = "##"
LONGEST_WORD = 100
"""Maximum number of characters in a word. WordPiece converts longer words to ``[UNK]``."""

CHARACTERS = 8
"""To obtain the first tokens of a text, this number of characters per token is tokenized initially."""
_SPACE = re.compile(r"\s")


def clean(text: str) -> str:
    """Normalize to Unicode NFC, replace each sequence of whitespace characters with one space, and strip leading and
    trailing whitespace.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def learn_vocabulary(texts: Sequence[str], size: int, *, lowercase: bool) -> tuple[str, ...]:
    """Learn a WordPiece vocabulary of at most `size` pieces.

    The index of a piece is its token id. The first four pieces are `SPECIAL_TOKENS`. The result is deterministic, that
    is, the same texts produce the same vocabulary in every process. If the characters alone would require more than
    `size` pieces, the rarest characters are omitted. Words with omitted characters become ``[UNK]``.
    """
    from tokenizers import trainers

    tokenizer = _tokenizer({UNKNOWN: 0}, lowercase)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))  # faster than a loop over the characters
    by_count = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    alphabet = sorted(by_count[: (size - len(SPECIAL_TOKENS)) // 2])
    # The trainer assigns ids to "##x" in the order of a randomly seeded hash map and breaks ties between pairs by
    # these ids. Passing them as special tokens fixes the order.
    single = [*SPECIAL_TOKENS, *(CONTINUATION + character for character in alphabet)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=single,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    ids = tokenizer.get_vocab(with_added_tokens=False)
    return tuple(sorted(ids, key=ids.__getitem__))


def learn_words(texts: Sequence[str], size: int, *, lowercase: bool, least: int = 2) -> tuple[str, ...]:
    """Learn a vocabulary of whole words and punctuation marks that occur at least `least` times.

    The vocabulary has at most `size` entries: the four `SPECIAL_TOKENS`, followed by the words in descending order of
    frequency. Every other word becomes ``[UNK]``.
    """
    tokenizer = _tokenizer({UNKNOWN: 0}, lowercase)
    counts: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    known = sorted((word for word, n in counts.items() if n >= least), key=lambda word: (-counts[word], word))
    return (*SPECIAL_TOKENS, *known[: size - len(SPECIAL_TOKENS)])


def tokenizer_for(vocabulary: Sequence[str], *, lowercase: bool) -> Any:
    """Return the tokenizer for a vocabulary returned by `learn_vocabulary` or `learn_words`."""
    return _tokenizer({piece: number for number, piece in enumerate(vocabulary)}, lowercase)


def serialized(tokenizer: Any) -> dict[str, Any]:
    """Return the content of a tokenizer's ``tokenizer.json``, in the format of the ``tokenizers`` package."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def deserialized(content: Any) -> Any:
    """Return the tokenizer whose ``tokenizer.json`` was returned by `serialized`. Raises `harness.DataError` if the
    content is not valid."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # The package tokenizers raises a plain Exception.
        raise DataError(f"the stored tokenizer cannot be read: {error}") from None


_read: list[tuple[Any, Any, tuple[str, ...]]] = []
"""Content, tokenizer and vocabulary of the last call to `stored_tokenizer`."""


def stored_tokenizer(content: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the tokenizer whose ``tokenizer.json`` was returned by `serialized`, and the tokenizer's vocabulary.

    The most recent tokenizer is cached. A service prepares many small batches with the same tokenizer, and reading a
    tokenizer takes much longer than tokenizing a text. Raises `harness.DataError` if the content is not valid.
    """
    for known, tokenizer, vocabulary in _read:
        if known is content:
            return tokenizer, vocabulary
    tokenizer = deserialized(content)
    vocabulary = vocabulary_of(tokenizer, "the stored tokenizer")
    _read[:] = [(content, tokenizer, vocabulary)]
    return tokenizer, vocabulary


def encode(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Return the token ids of each text, without special tokens, truncation or padding."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def pretrained_tokenizer(folder: str) -> tuple[Any, tuple[str, ...]]:
    """Return the tokenizer in `folder` and its vocabulary.

    The tokenizer is read from ``tokenizer.json`` if this file exists. Otherwise, ``vocab.txt`` is read, and
    ``do_lower_case`` is taken from ``tokenizer_config.json``. Raises `harness.DataError` if both files are missing or
    cannot be read, or if the tokenizer does not have BERT's special tokens.
    """
    tokenizer = _pretrained(Path(folder))
    return tokenizer, vocabulary_of(tokenizer, f"the tokenizer in {folder}")


def encode_start(texts: Sequence[str], tokenizer: Any, count: int) -> list[list[int]]:
    """Return the first `count` token ids of each text (see `encode`) without tokenizing the rest of long texts.

    The time to tokenize a text therefore does not depend on its length. The texts are cleaned; see `clean`.
    """
    least = count + LONGEST_WORD  # If a word was divided, its tokens are among the last `LONGEST_WORD` ones.
    found: list[list[int]] = [[] for _ in texts]
    pending, size = list(range(len(texts))), CHARACTERS * least
    while pending:
        starts = {number: _start(texts[number], size) for number in pending}
        for number, ids in zip(pending, encode([*map(clean, starts.values())], tokenizer), strict=True):
            found[number] = ids
        pending = [n for n, start in starts.items() if len(start) < len(texts[n]) and len(found[n]) < least]
        size *= 4
    return [ids[:count] for ids in found]


def _start(text: str, size: int) -> str:
    """Return the start of a text, with about `size` characters. The returned text extends to the next whitespace
    character, if there is one nearby."""
    space = _SPACE.search(text, size, size + 10 * LONGEST_WORD)
    return text[: size if space is None else space.start()]


def encode_pretrained(texts: Sequence[Sequence[str]], folder: str) -> tuple[list[list[list[int]]], tuple[str, ...]]:
    """Tokenize lists of texts with the tokenizer in `folder`, and return their token ids and the vocabulary.

    Raises the same errors as `pretrained_tokenizer`.
    """
    tokenizer, vocabulary = pretrained_tokenizer(folder)
    return [encode(part, tokenizer) for part in texts], vocabulary


def pretrained_vocabulary(folder: str) -> tuple[str, ...]:
    """Return the vocabulary of the tokenizer in `folder`. Unused ids map to empty strings.

    Raises the same errors as `pretrained_tokenizer`.
    """
    return pretrained_tokenizer(folder)[1]


def vocabulary_of(tokenizer: Any, name: str) -> tuple[str, ...]:
    """Return the pieces of a tokenizer, indexed by id. Unused ids map to empty strings.

    Raises `harness.DataError` if the tokenizer does not have BERT's special tokens.
    """
    ids = tokenizer.get_vocab()
    absent = [token for token in SPECIAL_TOKENS if token not in ids]
    if absent:
        raise DataError(f"{name} lacks {', '.join(absent)}; use a WordPiece tokenizer like BERT's")
    pieces = {number: piece for piece, number in ids.items()}
    return tuple(pieces.get(number, "") for number in range(max(pieces) + 1))


def _pretrained(folder: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return tokenizer
        pieces = read_lines(folder / "vocab.txt")
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    except Exception as error:  # The package tokenizers raises a plain Exception if it cannot read a file.
        raise DataError(f"cannot read a tokenizer in {folder}: {error}") from None
    mixed = next((number for number, piece in enumerate(pieces, 1) if piece.endswith("\r")), None)
    if mixed is not None:  # read_lines() removes the carriage returns if all lines end with one
        raise DataError(
            f"{folder / 'vocab.txt'}: line {mixed} ends with a carriage return, unlike other lines, so its token would "
            "never match any text; use the same line ending on every line"
        )
    lowercase = bool(settings.get("do_lower_case", True))
    return _tokenizer({piece: number for number, piece in enumerate(pieces)}, lowercase, published=True)


def pad(ids: Iterable[Sequence[int]], vocabulary: Sequence[str], max_length: int) -> dict[str, NDArray[np.int32]]:
    """Add ``[CLS]`` and ``[SEP]``, and then truncate or right-pad to `max_length` tokens.

    Returns ``input_ids`` and ``attention_mask`` (1 = token), int32 [N, max_length].
    """
    import numpy as np

    start, end = vocabulary.index(START), vocabulary.index(END)
    rows = [[start, *row[: max_length - 2], end] for row in ids]
    input_ids = np.full((len(rows), max_length), vocabulary.index(PAD), np.int32)
    attention_mask = np.zeros((len(rows), max_length), np.int32)
    for number, row in enumerate(rows):
        input_ids[number, : len(row)] = row
        attention_mask[number, : len(row)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _tokenizer(ids: dict[str, int], lowercase: bool, *, published: bool = False) -> Any:
    """Return a WordPiece tokenizer.

    If `published` is true, the tokenizer follows the conventions of the published BERT tokenizers.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    model = models.WordPiece(
        ids, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION, max_input_chars_per_word=LONGEST_WORD
    )
    tokenizer = Tokenizer(model)
    # Accents are kept by default: accented letters are distinct letters in most languages. With None, for published
    # vocabularies, accents are stripped if the text is lowercased, as in BERT.
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None if published else False)
    words: Any = pre_tokenizers.BertPreTokenizer()
    if not published:
        parts = pre_tokenizers.Split(Regex(f".{{{LONGEST_WORD}}}"), "isolated")
        words = pre_tokenizers.Sequence([words, parts])
    tokenizer.pre_tokenizer = words
    return tokenizer

"""Conversion of words to WordPiece tokens, with a vocabulary that is learned from the training split or read from a
checkpoint.

As in BERT, a word is split into the longest matching pieces in the vocabulary. All pieces except the first start with
``##``. Published tokenizers convert words of more than `LONGEST_WORD` characters, such as URLs, to ``[UNK]``. With a
learned vocabulary, such words are first divided into parts of this length.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import DataError, read_lines

PAD, UNKNOWN, START, END = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CONTINUATION = "##"
LONGEST_WORD = 100
"""Maximum number of characters in a word. WordPiece converts longer words to ``[UNK]``."""


class Tokens(NamedTuple):
    """Tokens of one sentence, without special tokens, truncation or padding."""

    ids: list[int]
    """Token ids."""
    first: list[int]
    """For each word, the index of its first piece in `ids`."""


def learn(sentences: Iterable[Sequence[str]], size: int, *, lowercase: bool) -> Any:
    """Learn a vocabulary of at most `size` pieces and return a `tokenizers.Tokenizer` that uses it.

    The first four pieces are `SPECIAL_TOKENS`. The vocabulary depends only on the sentences, and is the same in every
    process. If there are more distinct characters than fit into `size` pieces, the rarest characters are omitted. Words
    that contain an omitted character become ``[UNK]``.
    """
    from tokenizers import trainers

    tokenizer = _tokenizer({UNKNOWN: 0}, lowercase)
    texts = [" ".join(words) for words in sentences]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    by_count = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    alphabet = sorted(by_count[: (size - len(SPECIAL_TOKENS)) // 2])
    # The trainer assigns ids to "##x" in the order of a randomly seeded hash map and breaks ties between pairs by
    # these ids. Passing them as special tokens fixes the order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *(CONTINUATION + character for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    # Create a new tokenizer, because this one would recognize the special tokens "##x" within words.
    return _tokenizer(tokenizer.get_vocab(with_added_tokens=False), lowercase)


def pretrained(folder: Path) -> Any:
    """Return the tokenizer in `folder`.

    The tokenizer is read from ``tokenizer.json``. If this file does not exist, the tokenizer is built from
    ``vocab.txt`` and from ``do_lower_case`` in ``tokenizer_config.json``. Raises `harness.DataError` if the tokenizer
    cannot be read, or if it does not have BERT's special tokens.
    """
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
        else:
            pieces = read_lines(folder / "vocab.txt")
            config = folder / "tokenizer_config.json"
            settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
            lowercase = bool(settings.get("do_lower_case", True))
            numbered = {piece: number for number, piece in enumerate(pieces)}
            tokenizer = _tokenizer(numbered, lowercase, published=True)
    except Exception as error:  # the package tokenizers raises a plain Exception if it cannot read a file
        raise DataError(f"cannot read a tokenizer in {folder}: {error}") from None
    absent = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if absent:
        raise DataError(f"the tokenizer in {folder} lacks {', '.join(absent)}; use a WordPiece tokenizer like BERT's")
    return tokenizer


def encode(sentences: Iterable[Sequence[str]], tokenizer: Any) -> list[Tokens]:
    """Tokenize sentences of words.

    Each word has at least one piece. If the normalizer removes a word, such as a zero-width joiner, the word becomes
    ``[UNK]``.
    """
    unknown = tokenizer.token_to_id(UNKNOWN)
    encodings = tokenizer.encode_batch(list(map(list, sentences)), is_pretokenized=True, add_special_tokens=False)
    encoded = []
    for words, encoding in zip(sentences, encodings, strict=True):
        pieces: list[list[int]] = [[] for _ in words]
        for number, word in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[word].append(number)
        tokens = Tokens([], [])
        for word_ids in pieces:
            tokens.first.append(len(tokens.ids))
            tokens.ids.extend(word_ids or [unknown])
        encoded.append(tokens)
    return encoded


def _tokenizer(ids: dict[str, int], lowercase: bool, *, published: bool = False) -> Any:
    """Return a WordPiece tokenizer.

    If `published` is true, the tokenizer follows the conventions of published BERT tokenizers.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    model = models.WordPiece(
        ids, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION, max_input_chars_per_word=LONGEST_WORD
    )
    tokenizer = Tokenizer(model)
    # None, which is used for published vocabularies, strips accents if the text is lowercased, as in BERT.
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None if published else False)
    words: Any = pre_tokenizers.BertPreTokenizer()
    if not published:
        parts = pre_tokenizers.Split(Regex(f".{{{LONGEST_WORD}}}"), "isolated")
        words = pre_tokenizers.Sequence([words, parts])
    tokenizer.pre_tokenizer = words
    return tokenizer

"""From words to WordPiece tokens: a vocabulary learned on the training split, or a checkpoint's own.

A word is cut into the longest pieces that the vocabulary has, pieces after the first carry ``##``, as in BERT.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import DataError

PAD, UNKNOWN, START, END = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
CONTINUATION = "##"


class Tokens(NamedTuple):
    """Of one sentence, without special tokens, neither cut nor padded."""

    ids: list[int]
    first: list[int]
    """For each word, the place of its first piece in `ids`."""


def learn(sentences: Iterable[Sequence[str]], size: int, *, lowercase: bool) -> Any:
    """A `tokenizers.Tokenizer` of at most `size` pieces, `SPECIAL_TOKENS` first.

    The same sentences give the same one in every process. Characters that would need more than `size` pieces are left
    out, the rarest first; a word that has one becomes ``[UNK]``.
    """
    from tokenizers import trainers

    tokenizer = _tokenizer({UNKNOWN: 0}, lowercase)
    texts = [" ".join(words) for words in sentences]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    by_count = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    alphabet = sorted(by_count[: (size - len(SPECIAL_TOKENS)) // 2])
    # The trainer numbers "##x" in the order of a randomly seeded hash map and breaks ties between pairs by these
    # numbers; naming them as special tokens fixes the order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *(CONTINUATION + character for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    # Made anew: as special tokens, "##x" would be cut out of a text that has it.
    return _tokenizer(tokenizer.get_vocab(with_added_tokens=False), lowercase)


def pretrained(folder: Path) -> Any:
    """The tokenizer in `folder`: ``tokenizer.json``, else ``vocab.txt`` with ``do_lower_case`` of
    ``tokenizer_config.json``.

    Raises `harness.DataError` where there is none, or one without BERT's special tokens.
    """
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
        else:
            pieces = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            config = folder / "tokenizer_config.json"
            settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
            lowercase = bool(settings.get("do_lower_case", True))
            numbered = {piece: number for number, piece in enumerate(pieces)}
            tokenizer = _tokenizer(numbered, lowercase, strip_accents=None)
    except Exception as error:  # tokenizers raises plain Exception for a file that it cannot read
        raise DataError(f"no tokenizer can be read in {folder}: {error}") from None
    absent = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if absent:
        raise DataError(f"the tokenizer in {folder} lacks {', '.join(absent)}; WordPiece tokenizers of BERT are read")
    return tokenizer


def encode(sentences: Iterable[Sequence[str]], tokenizer: Any) -> list[Tokens]:
    """Every word has a piece at least: one of which nothing is left, such as a zero-width joiner, has ``[UNK]``."""
    unknown = tokenizer.token_to_id(UNKNOWN)
    encodings = tokenizer.encode_batch(list(map(list, sentences)), is_pretokenized=True, add_special_tokens=False)
    found = []
    for words, encoding in zip(sentences, encodings, strict=True):
        pieces: list[list[int]] = [[] for _ in words]
        for number, word in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[word].append(number)
        tokens = Tokens([], [])
        for of_word in pieces:
            tokens.first.append(len(tokens.ids))
            tokens.ids.extend(of_word or [unknown])
        found.append(tokens)
    return found


def _tokenizer(ids: dict[str, int], lowercase: bool, strip_accents: bool | None = False) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUATION))
    # None, for published vocabularies, strips accents where it lowers, as BERT did.
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer

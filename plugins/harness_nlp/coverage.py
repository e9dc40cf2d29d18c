"""Statistics of the tokens of each split, such as the fraction of unknown tokens, and warnings based on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness_nlp.options import NlpOptions

UNKNOWN_LIMIT = 0.1
"""Warning threshold for the fraction of ``[UNK]`` tokens in a split."""
TRUNCATED_LIMIT = 0.2
"""Warning threshold for the fraction of truncated texts in a split."""
_NAMED = 5
"""Maximum number of ids listed in a warning."""

Rows = Sequence[Sequence[int]]


def details(ids: Mapping[str, Rows], unknown: int, max_length: int) -> dict[str, bool | int | float | str]:
    """Return the token statistics to record for each split. `ids` contains the token ids of the texts, excluding
    special tokens.

    The name of each statistic ends with the name of its split, with two exceptions: ``truncated_share`` refers to the
    training split, and ``unknown_share`` refers to the validation split.
    """
    facts: dict[str, bool | int | float | str] = {}
    for name, rows in ids.items():
        facts["truncated_share" + ("" if name == "training" else f"_{name}")] = truncated_share(rows, max_length)
        facts["unknown_share" + ("" if name == "validation" else f"_{name}")] = unknown_share(rows, unknown)
        facts[f"unreadable_{name}"] = unreadable(rows, unknown)
    return facts


def unknown_share(rows: Rows, unknown: int) -> float:
    """Return the fraction of tokens that are equal to `unknown`."""
    total = sum(map(len, rows))
    return sum(row.count(unknown) for row in rows) / total if total else 0.0


def unreadable(rows: Rows, unknown: int) -> int:
    """Return the number of texts without any known tokens."""
    return sum(row.count(unknown) == len(row) for row in rows)


def truncated_share(rows: Rows, max_length: int) -> float:
    """Return the fraction of texts that are longer than `max_length` tokens, including ``[CLS]`` and ``[SEP]``."""
    return sum(len(row) + 2 > max_length for row in rows) / len(rows)


def warnings(ids: Mapping[str, Rows], unknown: int, max_length: int, options: NlpOptions) -> tuple[str, ...]:
    """Return a warning for each split with many unknown or truncated tokens.

    Each warning names the option to change.
    """
    found = []
    for name, rows in ids.items():
        share = unknown_share(rows, unknown)
        if share > UNKNOWN_LIMIT:
            count, total = sum(row.count(unknown) for row in rows), sum(map(len, rows))
            found.append(f"{count:,} of {total:,} {name} tokens ({share:.1%}) are [UNK]; {_advice(options)}")
        lost = unreadable(rows, unknown)
        if lost:
            found.append(
                f"{lost:,} of {len(rows):,} {name} texts consist only of [UNK] or are empty after tokenization, so "
                f"a model cannot distinguish them; {_advice(options)}"
            )
        cut = truncated_share(rows, max_length)
        if cut > TRUNCATED_LIMIT:
            longest = max(map(len, rows)) + 2
            found.append(
                f"{round(cut * len(rows)):,} of {len(rows):,} {name} texts ({cut:.1%}) were truncated to {max_length} "
                f"tokens (the longest has {longest:,}); set task.max_length to change the limit"
            )
    return tuple(found)


def unused_ids(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Return a warning if some ids of a tokenizer have no token.

    If the same token is on two lines of ``vocab.txt``, the second line determines the token's id, as in
    ``transformers``. The id that corresponds to the first line is then unused.
    """
    ids = [number for number, piece in enumerate(vocabulary) if not piece]
    if not ids:
        return ()
    named = ", ".join(map(str, ids[:_NAMED])) + (", ..." if len(ids) > _NAMED else "")
    verb = "id of the tokenizer has" if len(ids) == 1 else "ids of the tokenizer have"
    return (
        f"{len(ids):,} {verb} no token: {named}; if the tokenizer was read from vocab.txt, line {ids[0] + 1} is empty "
        "or its token is repeated on a later line, which determines the token's id",
    )


def _advice(options: NlpOptions) -> str:
    if options.tokenizer is not None:
        return "use a checkpoint whose tokenizer covers the language and script of the texts"
    if options.vocabulary == "word":
        return (
            "words that occur only once in the training split, or are not among the task.vocab_size "
            f"({options.vocab_size}) most frequent words, are unknown; set task.vocabulary=wordpiece to split them"
        )
    return (
        "characters that do not occur in the training split, or that do not fit into task.vocab_size "
        f"({options.vocab_size}), are unknown; raise task.vocab_size or use splits that contain the same kind of text"
    )

"""The ``ner`` task: named-entity recognition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness import IGNORED, DataError, DataInfo, InputSpec, PreparedData, RawData, Recipe, Split, Task, UsageError
from harness_ner import wordpiece
from harness_ner.wordpiece import Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


UNKNOWN_LIMIT = 0.1
"""Maximum fraction of ``[UNK]`` tokens in a split. If the fraction is larger, a warning is issued."""
TRUNCATED_LIMIT = 0.2
"""Maximum fraction of truncated sentences in a split. If the fraction is larger, a warning is issued."""


class NerOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``ner`` task."""

    vocab_size: int = 4000
    """Maximum number of WordPiece tokens in the vocabulary, including special tokens. At least 16."""
    max_length: int | None = None
    """Number of tokens per sentence, including ``[CLS]`` and ``[SEP]``. At least 3. Words that are cut off are not
    scored. If None, the length of the longest training sentence is used, rounded up to a multiple of 8. This default is
    at most 512 and does not exceed the number of positions in the checkpoint."""
    lowercase: bool = False
    """True to convert words to lower case before tokenization. The default is False, because names are capitalized in
    many languages."""
    tokenizer: str | None = None
    """Path of a folder with a pretrained WordPiece tokenizer (``tokenizer.json`` or ``vocab.txt``). The tokenizer is
    used unchanged, and `vocab_size` and `lowercase` are ignored. If None, a vocabulary is learned."""

    def __post_init__(self) -> None:
        if self.vocab_size < 16:
            raise ValueError(f"vocab_size must be at least 16, got {self.vocab_size}")
        if self.max_length is not None and self.max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a token and [SEP]), got {self.max_length}")


class NamedEntities(Task[NerOptions]):
    """Named-entity recognition.

    Words are split into WordPiece tokens. The first token of a word is labeled with the tag of the word, and the other
    tokens of the word are ignored.

    The prepared inputs are ``input_ids`` and ``attention_mask`` (1 = token), int32 [N, max_length], padded on the
    right. The targets are int64 [N, max_length], with `harness.IGNORED` at positions where no word starts. The groups
    consist of the groups of the dataset and an additional group column, ``tokens``. This column contains the number of
    tokens before truncation, including special tokens. `DataInfo.details` contains:

    - ``vocab_size``, ``pad_id``, ``unk_id``, ``cls_id`` and ``sep_id``,
    - ``truncated_share``: the fraction of training sentences that were truncated,
    - ``unscored_share``: the fraction of words in the test split that were cut off and are therefore not scored,
    - ``unknown_share_training``, ``unknown_share_validation`` and ``unknown_share_test``: the fraction of ``[UNK]``
      among the tokens of the split before truncation.
    """

    name = "ner"
    kind = "tagged-text"
    produces = "tagged-tokens"
    objective = "token_classification"
    summary = "named-entity recognition: a tag for each word"
    default_dataset = "cldr-sentences"
    default_model = "bert-tagger-tiny"
    counts = "tokens"
    metric = "entity_f1"
    metrics = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
    recipe = Recipe(
        epochs=6,
        batch_size=32,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="linear",
        warmup_fraction=0.1,
        clip_norm=1.0,
        dropout=0.1,
    )
    Options = NerOptions
    reported = ("unscored_share", "unknown_share_validation", "unknown_share_test")

    def prepare(self, data: RawData, options: NerOptions) -> PreparedData:
        """Tokenize the splits.

        Raises `harness.DataError` if a class is not a tag, or if a word of a sentence has no class.
        """
        _check_names(data.label_names)
        named = {"training": data.train, "validation": data.validation, "test": data.test}
        for name, split in named.items():
            _check(name, split)
        if options.tokenizer is not None:
            tokenizer = wordpiece.pretrained(Path(options.tokenizer))
        else:
            words = data.train.inputs["words"]
            tokenizer = wordpiece.learn(words, options.vocab_size, lowercase=options.lowercase)
        tokens = {name: wordpiece.encode(split.inputs["words"], tokenizer) for name, split in named.items()}
        lengths, unknown = _lengths(tokens["training"]), tokenizer.token_to_id(wordpiece.UNKNOWN)
        longest = 512
        if options.tokenizer is not None:
            longest = min(longest, checkpoint_sizes(Path(options.tokenizer)).max_position_embeddings or longest)
        max_length = options.max_length or min(longest, 8 * math.ceil(max(lengths.tolist()) / 8))
        train, validation, test = (
            _prepared(tokens[name], split, tokenizer, max_length) for name, split in named.items()
        )
        return PreparedData(
            train=train,
            validation=validation,
            test=test,
            info=DataInfo(
                kind=self.produces,
                inputs={name: InputSpec(shape=(max_length,), dtype="int32") for name in train.inputs},
                objective=self.objective,
                outputs=len(data.label_names),
                label_names=data.label_names,
                details={
                    "vocab_size": tokenizer.get_vocab_size(),
                    **{
                        f"{name.strip('[]').lower()}_id": tokenizer.token_to_id(name)
                        for name in wordpiece.SPECIAL_TOKENS
                    },
                    "truncated_share": float((lengths > max_length).mean()),
                    "unscored_share": 1 - _words(test.targets) / _words(data.test.targets),
                    **{f"unknown_share_{name}": _unknown_share(rows, unknown) for name, rows in tokens.items()},
                },
                warnings=tuple(_warnings(tokens, unknown, max_length, options)),
            ),
            fitted={"tokens": [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]},
        )

    def baseline(self, inputs: Mapping[str, NDArray[Any]], info: DataInfo) -> dict[str, NDArray[Any]]:
        """Replace all tokens except ``[CLS]`` and ``[SEP]`` with ``[PAD]``. The attention mask is not changed."""
        import numpy as np

        ids = inputs["input_ids"]
        kept = np.isin(ids, [info.details["cls_id"], info.details["sep_id"]])
        return {**inputs, "input_ids": np.where(kept, ids, np.int32(int(info.details["pad_id"])))}

    def tokens(self, inputs: Mapping[str, NDArray[Any]], fitted: Mapping[str, Any], info: DataInfo) -> list[list[str]]:
        """Return the tokens of each sentence. Tokens that continue a word have the prefix ``##``."""
        masks = inputs["attention_mask"].astype(bool)
        return [[fitted["tokens"][i] for i in row[mask]] for row, mask in zip(inputs["input_ids"], masks, strict=True)]

    def count(self, split: Split, info: DataInfo) -> Any:
        """Return the number of tokens of each sentence, without padding."""
        return split.inputs["attention_mask"].sum(axis=1)

    def checkpoint_options(self, folder: Path) -> dict[str, Any]:
        """Return the option that selects the checkpoint's tokenizer.

        Raises `harness.UsageError` if the checkpoint has no tokenizer, because the token ids of another vocabulary
        would not match the embeddings.
        """
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            raise UsageError(
                f"{folder} has no tokenizer (tokenizer.json or vocab.txt); copy the checkpoint's "
                "original tokenizer into this folder"
            )
        return {"tokenizer": str(folder)}

    def check_checkpoint(self, folder: Path, options: NerOptions) -> None:
        """Raise `harness.UsageError` if the checkpoint has too few embeddings or positions."""
        sizes = checkpoint_sizes(folder)
        positions, embeddings = sizes.max_position_embeddings, sizes.vocab_size
        if positions is not None and options.max_length is not None and positions < options.max_length:
            raise UsageError(
                f"task.max_length is {options.max_length}, but the checkpoint {folder} has {positions} positions; set "
                f"task.max_length={positions} or lower, or use a checkpoint with more positions"
            )
        tokens = wordpiece.pretrained(Path(options.tokenizer or folder)).get_vocab_size()
        if embeddings is not None and embeddings < tokens:
            raise UsageError(
                f"the tokenizer in {options.tokenizer or folder} has {tokens} tokens, but the checkpoint {folder} has "
                f"only {embeddings} embeddings (vocab_size in its config.json); resize the embeddings of the "
                "checkpoint, or use the tokenizer that it was trained with"
            )


class CheckpointSizes(Struct, frozen=True):
    """Sizes in the ``config.json`` of a checkpoint. Sizes that the file does not contain are None."""

    vocab_size: int | None = None
    max_position_embeddings: int | None = None


def checkpoint_sizes(folder: Path) -> CheckpointSizes:
    """Return the sizes in ``config.json``. If this file does not exist, all sizes are None.

    Raises `harness.UsageError`.
    """
    path = folder / "config.json"
    if not path.is_file():
        return CheckpointSizes()
    try:
        return msgspec.json.decode(path.read_bytes(), type=CheckpointSizes)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _check_names(names: Sequence[str]) -> None:
    wrong = [name for name in names if name != "O" and (name[:2] not in ("B-", "I-") or not name[2:])]
    if "O" not in names or wrong:
        problem = f"{wrong[0]!r} is not one of them" if wrong else "'O' is missing"
        raise DataError(f"the classes must be the tags O, B-type and I-type; {problem}")


def _check(name: str, split: Split) -> None:
    counts = (split.targets != IGNORED).sum(axis=1).tolist()
    for number, (words, count) in enumerate(zip(split.inputs["words"], counts, strict=True)):
        if len(words) != count or (split.targets[number, :count] == IGNORED).any():
            raise DataError(f"{name} sentence {number} has {len(words)} words but {count} tags; give each word one tag")


def _unknown_share(rows: Sequence[Tokens], unknown: int) -> float:
    """Return the fraction of all tokens that are `unknown`."""
    total = sum(len(row.ids) for row in rows)
    return sum(row.ids.count(unknown) for row in rows) / total if total else 0.0


def _warnings(
    tokens: Mapping[str, Sequence[Tokens]], unknown: int, max_length: int, options: NerOptions
) -> Iterator[str]:
    """Yield a warning for each split with many unknown or truncated tokens."""
    advice = "raise task.vocab_size" if options.tokenizer is None else "use a checkpoint with another tokenizer"
    for name, rows in tokens.items():
        share = _unknown_share(rows, unknown)
        if share > UNKNOWN_LIMIT:
            yield f"{share:.1%} of the {name} tokens are [UNK]; {advice}, or check the language of the sentences"
        lost = sum(row.ids.count(unknown) == len(row.ids) for row in rows)
        if lost:
            yield f"{lost:,} of {len(rows):,} {name} sentences consist only of [UNK]; {advice}"
        cut = int((_lengths(rows) > max_length).sum())
        if cut > TRUNCATED_LIMIT * len(rows):
            yield (
                f"{cut:,} of {len(rows):,} {name} sentences ({cut / len(rows):.1%}) were truncated to {max_length} "
                "tokens, and the words that were cut off are not scored; set task.max_length to change the limit"
            )


def _lengths(rows: Sequence[Tokens]) -> NDArray[np.int64]:
    """Return the number of tokens in each sentence, including ``[CLS]`` and ``[SEP]``."""
    import numpy as np

    return np.array([len(row.ids) + 2 for row in rows], np.int64)


def _words(targets: NDArray[Any]) -> int:
    """Return the number of words with a tag."""
    return int((targets != IGNORED).sum())


def _prepared(rows: Sequence[Tokens], split: Split, tokenizer: Any, max_length: int) -> Split:
    """Add ``[CLS]`` and ``[SEP]``, then truncate and right-pad to `max_length` tokens."""
    import numpy as np

    pad, _, start, end = map(tokenizer.token_to_id, wordpiece.SPECIAL_TOKENS)
    input_ids = np.full((len(rows), max_length), pad, np.int32)
    attention_mask = np.zeros((len(rows), max_length), np.int32)
    targets = np.full((len(rows), max_length), IGNORED, np.int64)
    for number, row in enumerate(rows):
        kept = [start, *row.ids[: max_length - 2], end]
        input_ids[number, : len(kept)] = kept
        attention_mask[number, : len(kept)] = 1
        first = [1 + position for position in row.first if position < max_length - 2]
        targets[number, first] = split.targets[number, : len(first)]
    return Split(
        inputs={"input_ids": input_ids, "attention_mask": attention_mask},
        targets=targets,
        groups={"tokens": _lengths(rows), **split.groups},
    )

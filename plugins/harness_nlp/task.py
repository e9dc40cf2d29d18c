"""The ``nlp`` task: text classification with a vocabulary learned from the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import (
    CLASSIFICATION_METRICS,
    DataError,
    DataInfo,
    InputSpec,
    PreparedData,
    RawData,
    Recipe,
    Split,
    Task,
    UsageError,
)
from harness_nlp import checkpoints, coverage, text
from harness_nlp.options import NlpOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LONGEST = 512
"""Upper limit of the default ``max_length``, in tokens."""


class TextClassification(Task[NlpOptions]):
    """Text classification.

    Texts are cleaned, tokenized with a vocabulary learned from the training split, and truncated or padded to a common
    length.

    Prepared inputs: ``input_ids`` and ``attention_mask`` (1 = token), int32 [N, max_length], padded on the right.
    Groups: the dataset's groups, and ``tokens``, the number of tokens before truncation, including special tokens.

    The details (`DataInfo.details`) are:

    - ``vocab_size``, ``pad_id``, ``unk_id``, ``cls_id`` and ``sep_id``.
    - ``truncated_share``: fraction of training texts that were truncated.
    - ``unknown_share``: fraction of validation tokens, before truncation, that are ``[UNK]``.
    - ``truncated_share_*`` and ``unknown_share_*``: fractions of truncated texts and unknown tokens in the other
      splits, such as ``unknown_share_test``.
    - ``unreadable_training``, ``unreadable_validation`` and ``unreadable_test``: number of texts without known tokens.
    """

    name = "nlp"
    kind = "text"
    produces = "tokens"
    objective = "classification"
    summary = "text classification"
    default_dataset = "cldr-langid"
    default_model = "bert-tiny"
    models_by_size = {0: "lstm-small"}  # see docs/explanation/defaults.md
    min_steps = 1000
    metric = "accuracy"
    counts = "tokens"
    metrics = CLASSIFICATION_METRICS
    recipe = Recipe(
        epochs=4,
        batch_size=64,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        schedule="linear",
        warmup_fraction=0.1,
        clip_norm=1.0,
        dropout=0.1,
    )
    Options = NlpOptions
    reported = (
        "unknown_share",
        "truncated_share_validation",
        "unreadable_validation",
        "unknown_share_test",
        "truncated_share_test",
        "unreadable_test",
    )

    def prepare(self, data: RawData, options: NlpOptions) -> PreparedData:
        """Tokenize the splits.

        Raises `harness.DataError` if a value is not a string, or if all texts in the training split are empty.
        """
        named = {"training": data.train, "validation": data.validation, "test": data.test}
        for name, split in named.items():
            _check_texts(name, split.inputs["text"])
        train, validation, test = (_cleaned(split) for split in named.values())
        if not any(train):
            raise DataError("cannot learn a vocabulary, because every text in the training split is empty")
        parts = (train, validation, test)
        if options.tokenizer is not None:
            tokenizer, vocabulary = text.pretrained_tokenizer(options.tokenizer)
        else:
            learn = text.learn_words if options.vocabulary == "word" else text.learn_vocabulary
            vocabulary = learn(train, options.vocab_size, lowercase=options.lowercase)
            tokenizer = text.tokenizer_for(vocabulary, lowercase=options.lowercase)
        ids = [text.encode(texts, tokenizer) for texts in parts]
        max_length = options.max_length or _covering_length(_lengths(ids[0]).tolist(), limit=_longest(options))
        by_split, unknown = dict(zip(named, ids, strict=True)), vocabulary.index(text.UNKNOWN)
        splits = [
            Split(
                inputs=text.pad(rows, vocabulary, max_length),
                targets=_classes(split.targets),
                groups={"tokens": _lengths(rows), **split.groups},
            )
            for rows, split in zip(ids, named.values(), strict=True)
        ]
        return PreparedData(
            train=splits[0],
            validation=splits[1],
            test=splits[2],
            info=DataInfo(
                kind=self.produces,
                inputs={name: InputSpec(shape=(max_length,), dtype="int32") for name in splits[0].inputs},
                objective=self.objective,
                outputs=len(data.label_names),
                label_names=data.label_names,
                details={
                    "vocab_size": len(vocabulary),
                    "pad_id": vocabulary.index(text.PAD),
                    "unk_id": unknown,
                    "cls_id": vocabulary.index(text.START),
                    "sep_id": vocabulary.index(text.END),
                    **coverage.details(by_split, unknown, max_length),
                },
                warnings=(
                    *coverage.unused_ids(vocabulary),
                    *coverage.warnings(by_split, unknown, max_length, options),
                ),
            ),
            fitted={"tokenizer": text.serialized(tokenizer)},
        )

    def baseline(self, inputs: Mapping[str, NDArray[Any]], info: DataInfo) -> dict[str, NDArray[Any]]:
        """Replace all tokens except ``[CLS]`` and ``[SEP]`` with ``[PAD]``. The attention mask is not changed."""
        import numpy as np

        ids = inputs["input_ids"]
        kept = np.isin(ids, [info.details["cls_id"], info.details["sep_id"]])
        return {**inputs, "input_ids": np.where(kept, ids, np.int32(int(info.details["pad_id"])))}

    def tokens(self, inputs: Mapping[str, NDArray[Any]], fitted: Mapping[str, Any], info: DataInfo) -> list[list[str]]:
        """Return the tokens of each example. Tokens that continue a word have the prefix ``##``."""
        _, vocabulary = text.stored_tokenizer(fitted["tokenizer"])
        masks = inputs["attention_mask"].astype(bool)
        return [[vocabulary[i] for i in row[mask]] for row, mask in zip(inputs["input_ids"], masks, strict=True)]

    def count(self, split: Split, info: DataInfo) -> Any:
        """Return the number of tokens of each example, without padding."""
        return split.inputs["attention_mask"].sum(axis=1)

    def transform(
        self,
        inputs: Mapping[str, NDArray[Any]],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: NlpOptions,
    ) -> dict[str, NDArray[Any]]:
        """Tokenize new texts with the same tokenizer as the training data. ``fitted["tokenizer"]`` contains its
        ``tokenizer.json``."""
        _check_texts("new", inputs["text"])
        tokenizer, vocabulary = text.stored_tokenizer(fitted["tokenizer"])
        (max_length,) = info.inputs["input_ids"].shape
        ids = text.encode([text.clean(value) for value in inputs["text"]], tokenizer)
        return {**text.pad(ids, vocabulary, max_length)}

    def augment(
        self, inputs: dict[str, NDArray[Any]], info: DataInfo, options: NlpOptions, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Replace tokens with ``[UNK]`` at random (word dropout)."""
        if not options.word_dropout:
            return inputs
        import numpy as np

        ids = inputs["input_ids"]
        special = [info.details[name] for name in ("pad_id", "cls_id", "sep_id")]
        dropped = (rng.random(ids.shape, np.float32) < options.word_dropout) & ~np.isin(ids, special)
        return inputs | {"input_ids": np.where(dropped, np.int32(int(info.details["unk_id"])), ids)}

    def checkpoint_options(self, folder: Path) -> dict[str, Any]:
        """Return the option that selects the checkpoint's tokenizer.

        Raises `harness.UsageError` if the checkpoint has no tokenizer, because the token ids of another vocabulary
        would not match the checkpoint's embeddings.
        """
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            raise UsageError(
                f"{folder} has no tokenizer (tokenizer.json or vocab.txt); copy the checkpoint's "
                "original tokenizer into this folder"
            )
        return {"tokenizer": str(folder)}

    def check_checkpoint(self, folder: Path, options: NlpOptions) -> None:
        """Raise `harness.UsageError` if the checkpoint has too few embeddings or positions."""
        checkpoints.check(folder, options)


def _check_texts(name: str, texts: NDArray[Any]) -> None:
    for number, value in enumerate(texts):
        if not isinstance(value, str):
            raise DataError(f"{name} example {number} is {value!r}, not a string")


def _cleaned(split: Split) -> list[str]:
    return [text.clean(value) for value in split.inputs["text"]]


def _classes(targets: NDArray[Any]) -> NDArray[np.int64]:
    return targets.astype("int64")


def _lengths(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return the number of tokens in each row, including ``[CLS]`` and ``[SEP]``."""
    import numpy as np

    return np.array([len(row) + 2 for row in rows], np.int64)


def _longest(options: NlpOptions) -> int:
    """Return the upper limit of the default length: 512 or, if smaller, the checkpoint's number of positions."""
    positions = (
        None if options.tokenizer is None else checkpoints.sizes(Path(options.tokenizer)).max_position_embeddings
    )
    return LONGEST if positions is None else min(LONGEST, max(3, positions))


def _covering_length(lengths: Sequence[int], share: float = 0.99, limit: int = LONGEST) -> int:
    """Return the shortest length that fits the fraction `share` of the examples (nearest rank).

    The length is rounded up to a multiple of 8 and is at most `limit`.
    """
    import math

    covering = sorted(lengths)[math.ceil(share * len(lengths)) - 1]
    return min(limit, 8 * math.ceil(covering / 8))

"""The ``cldr-sentences`` dataset: synthetic sentences with names of territories, languages and currencies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from harness import Dataset, NoOptions, RawData
from harness_ner.tagged import INPUTS, Sentence, label_names, split

if TYPE_CHECKING:
    import numpy as np

KINDS = ("territory", "language", "currency")
SIZES = {"train": 1_600, "validation": 400, "test": 400}
TEMPLATES = (
    "{territory} and {territory} signed the treaty in 1998 .",
    "She was born in {territory} but speaks {language} at home .",
    "The {currency} fell against the {currency} on Monday .",
    "We translated the book from {language} into {language} .",
    "{language} is spoken in parts of {territory} .",
    "In {territory} all prices are given in {currency} .",
    "A course in {language} starts on 5 May .",
    "The minister of finance of {territory} defended the {currency} .",
    "He collects stamps from {territory} , {territory} and {territory} .",
    "The museum shows old coins ( {currency} ) and maps ( {territory} ) .",
    "They moved to {territory} last year .",
    "Do you know the {language} word for bread ?",
    "The {currency} was withdrawn in {territory} in March .",
    "Anna likes {any} .",
    "Tell me more about {any} , please .",
    "The article on {any} is short .",
    "{any} , {any} and {any} were the answers .",
    "Is {any} in the index ?",
    "{territory} joined the Union without the {currency} .",
    "According to Mr Brown , {language} and {language} have much in common .",
)
"""Sentences with placeholders for names. ``any`` stands for a name of any of the three types; the sentence does not
reveal which.
"""


class CldrSentences(Dataset):
    """Sentences generated from twenty templates, which are filled with English names of territories, languages and
    currencies.

    This synthetic dataset makes it possible to test a tagger in seconds, without a download. The sentences are easier
    than natural text. The names come from the Unicode Common Locale Data Repository (CLDR), as distributed with
    ``babel``. The SHA-256 digest of a name determines its split (80% training, 10% validation, 10% test). The names in
    the validation and test splits therefore do not occur in the training split. Names that have more than one type are
    excluded. Sentences are drawn with a fixed seed, without duplicates within a split.

    Inputs: ``words``, object array [N] of tuples of str. Targets: int64 [N, W], the tag of each word.
    """

    name = "cldr-sentences"
    kind = "tagged-text"
    objective = "token_classification"
    summary = "synthetic sentences that contain names of territories, languages and currencies (CLDR)"
    license = "Unicode License v3 (https://www.unicode.org/license.txt)"
    homepage = "https://cldr.unicode.org/"
    citation = "Unicode Common Locale Data Repository, as distributed with babel"
    notes = (
        "This dataset was created for this package. There are no published results. "
        "The names depend on the babel release."
    )
    examples = SIZES
    inputs = INPUTS
    label_names = label_names(KINDS)
    metric = "entity_f1"
    target = 0.5
    recipes = {"bert-tagger": {"learning_rate": 2e-3}}
    # The vocabulary is small, because with more pieces the model memorizes whole names, which do not occur in the other
    # splits. Validation entity F1 of bert-tagger-tiny is 0.61, and 0.40 with 4000 pieces (seed 0, same learning rate).
    task_options = {"ner": {"vocab_size": 300}}

    def load(self, options: NoOptions) -> RawData:
        """Read the names from babel's data files, without a download."""
        from importlib.metadata import version

        import numpy as np

        names_of_split = by_split(names())
        splits = {
            name: split(_draw(part, SIZES[name], np.random.default_rng(seed)), self.label_names)
            for seed, (name, part) in enumerate(names_of_split.items())
        }
        return RawData(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            label_names=self.label_names,
            details={"babel_version": version("babel")},
        )


Names = Mapping[str, Sequence[str]]
"""Names of entities, keyed by entity type."""


def names() -> Names:
    """Return the names, keyed by type, excluding names that have more than one type."""
    from babel import Locale

    locale = Locale("en")
    # The private codes XA, XB and ZZ are not territories.
    territories = [name for code, name in locale.territories.items() if not re.fullmatch("X[AB]|ZZ", code)]
    listed = dict(zip(KINDS, (territories, locale.languages.values(), locale.currencies.values()), strict=True))
    clean = {kind: sorted({" ".join(name.split()) for name in every}) for kind, every in listed.items()}
    kinds: dict[str, int] = {}
    for every in clean.values():
        for name in every:
            kinds[name.casefold()] = kinds.get(name.casefold(), 0) + 1
    return {kind: [name for name in every if kinds[name.casefold()] == 1] for kind, every in clean.items()}


def by_split(every: Names) -> dict[str, Names]:
    """Assign each name to a split by its SHA-256 digest."""
    parts: dict[str, dict[str, list[str]]] = {name: {} for name in SIZES}
    for kind, of_kind in every.items():
        ordered = sorted(of_kind, key=lambda name: hashlib.sha256(name.encode()).digest())
        tenth = round(len(ordered) / 10)
        parts["validation"][kind] = ordered[:tenth]
        parts["test"][kind] = ordered[tenth : 2 * tenth]
        parts["train"][kind] = ordered[2 * tenth :]
    return parts  # type: ignore[return-value]


def _draw(names: Names, count: int, rng: np.random.Generator) -> list[Sentence]:
    drawn: dict[tuple[tuple[str, str], ...], None] = {}  # a dict removes duplicates and keeps the order
    while len(drawn) < count:
        drawn[tuple(_filled(TEMPLATES[rng.integers(len(TEMPLATES))], names, rng))] = None
    return list(drawn)


def _filled(template: str, names: Names, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    for word in template.split():
        if not word.startswith("{"):
            yield word, "O"
            continue
        slot = word.strip("{}")
        kind = KINDS[int(rng.integers(len(KINDS)))] if slot == "any" else slot
        name = names[kind][int(rng.integers(len(names[kind])))]
        for index, part in enumerate(name.split()):
            yield part, f"{'I' if index else 'B'}-{kind}"

"""The ``cldr-langid`` dataset: language identification of names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence

from harness import Dataset, NoOptions, RawData, Split
from harness_nlp.datasets.examples import INPUTS

LANGUAGES = (
    *("cs", "da", "de", "en", "es", "et", "fi", "fr", "hu", "id"),
    *("it", "lt", "nl", "pl", "pt", "ro", "sv", "sw", "tr", "vi"),
)


class CldrLangid(Dataset):
    """Language identification of individual names in 20 languages, all written in Latin script.

    The names of territories, languages, scripts and currencies in each language (``Kreikka``, ``arabialainen``,
    ``sambijská kwacha``) come from the Unicode Common Locale Data Repository (CLDR), as distributed with ``babel``. The
    names are normalized to NFC. A name is kept if it has at least three letters and occurs in only one of the 20
    languages, ignoring case. Within a language, names that differ only in case, digits or punctuation are considered
    duplicates, and only the first of them is kept.

    Each language is split into 80% training, 10% validation and 10% test names. The split of a name is determined by
    its SHA-256 digest. The splits therefore depend only on the names, and most names stay in the same split across CLDR
    releases. The names of the same item in different languages, such as ``Greece`` and ``Kreikka``, may be in different
    splits, but each name is in only one split.

    With babel 2.18, the dataset contains 15,734 names: 12,586 for training and 1,574 each for validation and test. Each
    language has between 518 (Danish) and 1,135 (Lithuanian) names, 787 on average. Always predicting the most frequent
    class gives an accuracy of 0.07. Logistic regression on TF-IDF features of character 1- to 5-grams reaches 0.835 on
    the test split (``python -m benchmarks.character_ngrams``).

    Inputs: ``text``, object array of str [N]. Targets: int64 [N], indices into ``label_names``, which are ISO 639-1
    codes.
    """

    name = "cldr-langid"
    kind = "text"
    objective = "classification"
    summary = "language identification: names of territories, languages, scripts and currencies in 20 languages (CLDR)"
    license = "Unicode License v3 (https://www.unicode.org/license.txt)"
    homepage = "https://cldr.unicode.org/"
    citation = "Unicode Common Locale Data Repository, as distributed with babel"
    notes = (
        "This dataset was created for harness, so there are no published results. The numbers of examples refer to "
        "babel 2.18."
    )
    examples = {"train": 12_586, "validation": 1_574, "test": 1_574}
    inputs = INPUTS
    label_names = LANGUAGES
    metric = "accuracy"
    target = 0.7
    recipes = {"lstm": {"epochs": 10, "learning_rate": 4e-3, "dropout": 0.5}}

    def load(self, options: NoOptions) -> RawData:
        """Read the names from babel's data files, without downloading anything."""
        from importlib.metadata import version

        splits: tuple[list[_Example], ...] = ([], [], [])
        for label, names in enumerate(names_by_language().values()):
            ordered = sorted((_digest(name), name, label) for name in names)
            tenth = round(len(ordered) / 10)
            splits[0].extend(ordered[2 * tenth :])
            splits[1].extend(ordered[:tenth])
            splits[2].extend(ordered[tenth : 2 * tenth])
        # The reversed digest gives an order that is independent of how the examples of a split were chosen.
        train, validation, test = (_split(sorted(part, key=lambda example: example[0][::-1])) for part in splits)
        return RawData(
            train=train,
            validation=validation,
            test=test,
            label_names=LANGUAGES,
            details={"babel_version": version("babel")},
        )


_Example = tuple[bytes, str, int]


def names_by_language() -> dict[str, list[str]]:
    """Return the names that occur in only one language, by language code, in CLDR's item order."""
    names = {code: _distinct(_names(code)) for code in LANGUAGES}
    speakers: dict[str, set[str]] = {}
    for code in LANGUAGES:
        for name in names[code]:
            speakers.setdefault(name.casefold(), set()).add(code)
    return {code: [name for name in names[code] if len(speakers[name.casefold()]) == 1] for code in LANGUAGES}


def _names(code: str) -> Iterator[str]:
    from babel import Locale

    locale = Locale(code)
    for items in (locale.territories, locale.languages, locale.scripts, locale.currencies):
        for _, name in sorted(items.items()):
            yield unicodedata.normalize("NFC", " ".join(name.split()))


def _distinct(names: Iterator[str]) -> list[str]:
    """Return the names without duplicates. If several names have the same sequence of letters, only the first is kept.
    Names with fewer than three letters are excluded.
    """
    first: dict[str, str] = {}
    for name in names:
        letters = "".join(filter(str.isalpha, name.casefold()))
        if len(letters) >= 3:
            first.setdefault(letters, name)
    return list(first.values())


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _split(examples: Sequence[_Example]) -> Split:
    import numpy as np

    return Split(
        inputs={"text": np.array([name for _, name, _ in examples], dtype=object)},
        targets=np.array([label for _, _, label in examples], dtype=np.int64),
    )

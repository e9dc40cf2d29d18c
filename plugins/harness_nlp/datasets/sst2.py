"""The ``sst2`` dataset: sentiment of phrases from film reviews."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import DataError, Dataset, NoOptions, RawData, RemoteFile, Split, installed, read_lines
from harness_nlp.datasets.examples import INPUTS, split, with_validation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABELS = ("negative", "positive")


class Sst2(Dataset):
    """Stanford Sentiment Treebank with two classes, as published by GLUE: 67,349 training, 872 dev and 1,821 test
    examples.

    **GLUE does not publish the test labels**, because predictions are scored by its server. The test split of this
    dataset is therefore GLUE's dev set, on which most papers report results. The dev set contains 872 whole sentences,
    444 of them positive. The validation split is taken from the training file.

    The training file contains every phrase in the treebank's parse trees, and 37,569 of these phrases are positive. For
    example, both "a gorgeous film" and "film" are in the file, in addition to the sentence that contains them. If
    validation phrases were drawn independently, 82% of the phrases with at least five words would be part of a training
    phrase, and the score would not measure generalization to new text. Therefore, each phrase is grouped with the
    longest phrase that contains it. The validation split consists of whole groups, which together contain about 10% of
    the phrases.

    Inputs: ``text``, object array of str [N], tokenized and lowercased by the publisher. Targets: int64 [N]. Published
    results usually report accuracy.
    """

    name = "sst2"
    kind = "text"
    objective = "classification"
    summary = "sentiment of 67,349 phrases from film reviews, 2 classes (GLUE SST-2; scored on its dev set)"
    license = "not stated by the publisher; research use is customary"
    homepage = "https://nlp.stanford.edu/sentiment/"
    citation = (
        "Socher et al. 2013, Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank, EMNLP; "
        "Wang et al. 2019, GLUE, ICLR"
    )
    recipes = {"lstm": {"epochs": 2, "learning_rate": 2e-3, "dropout": 0.5}}
    task_options = {"nlp": {"vocab_size": 8000}}
    fine_tuning = {"bert": {"epochs": 1}}
    notes = (
        "GLUE withholds the test labels. The test split is GLUE's dev set (872 sentences), and the validation split "
        "is drawn from the training phrases. Phrases of the same sentence stay in the same split."
    )
    examples = {"train": 60_633, "validation": 6_716, "test": 872}
    inputs = INPUTS
    label_names = LABELS
    metric = "accuracy"
    target = 0.8
    files = (
        RemoteFile(
            url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
            bytes=7_439_277,
            members={
                "SST-2/train.tsv": "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
                "SST-2/dev.tsv": "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
            },
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from ``SST-2/train.tsv`` and ``SST-2/dev.tsv`` in `folder`."""
    train = _read(folder / "SST-2" / "train.tsv")
    test = _read(folder / "SST-2" / "dev.tsv")
    return with_validation(train, test, LABELS, groups=sentences(train.inputs["text"]))


def _read(path: Path) -> Split:
    header, *lines = read_lines(path)
    rows = [line.rpartition("\t") for line in lines]  # not csv, because quotation marks are part of the text
    bad = next((number for number, (_, _, label) in enumerate(rows, 2) if label not in ("0", "1")), None)
    if header != "sentence\tlabel" or bad:
        raise DataError(
            f"{path}, line {bad or 1}: expected the header sentence<TAB>label, then lines with a sentence, a tab and "
            "0 or 1"
        )
    return split([text.strip() for text, _, _ in rows], [int(label) for _, _, label in rows])


def sentences(phrases: Iterable[str]) -> NDArray[np.int64]:
    """Return, for each phrase, the index of the longest phrase that contains it, int64 ``[N]``."""
    import numpy as np

    tokens = [tuple(phrase.split()) for phrase in phrases]
    containing: dict[tuple[str, ...], int] = {}
    groups = np.empty(len(tokens), np.int64)
    needed = dict.fromkeys(tokens)
    for number in sorted(range(len(tokens)), key=lambda number: -len(tokens[number])):
        phrase = tokens[number]
        if phrase not in containing:
            for start in range(len(phrase)):
                for end in range(start + 1, len(phrase) + 1):
                    part = phrase[start:end]
                    if part in needed:
                        containing.setdefault(part, number)
        groups[number] = containing.get(phrase, number)  # an empty phrase forms a separate group
    return groups

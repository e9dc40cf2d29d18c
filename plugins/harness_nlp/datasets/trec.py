"""The ``trec`` dataset: question classification."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from harness import DataError, Dataset, RawData, RemoteFile, installed, read_lines
from harness_nlp.datasets.examples import INPUTS, split, with_validation

COARSE = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
"""Coarse classes: abbreviation, description, entity, human being, location and numeric value."""
_FINE = {
    "ABBR": "abb exp",
    "DESC": "def desc manner reason",
    "ENTY": "animal body color cremat currency dismed event food instru lang letter other plant product religion sport "
    "substance symbol techmeth termeq veh word",
    "HUM": "desc gr ind title",
    "LOC": "city country mount other state",
    "NUM": "code count date dist money ord other perc period speed temp volsize weight",
}
FINE = tuple(f"{coarse}:{fine}" for coarse in COARSE for fine in _FINE[coarse].split())


class TrecOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for the ``trec`` dataset."""

    labels: Literal["coarse", "fine"] = "coarse"
    """Set of classes, ``coarse`` (6 classes) or ``fine`` (50 classes)."""


class Trec(Dataset[TrecOptions]):
    """TREC question classification: 5,452 training questions, and the 500 questions of TREC-10 as the test split.

    There are 6 coarse or 50 fine classes. Only 42 of the fine classes occur in the test split. The publisher's files
    are encoded in latin-1. The validation split is 10% of the training questions in each class. Duplicate questions are
    always in the same split.

    Inputs: ``text``, object array of str [N], tokenized by the publisher. Targets: int64 [N]. Groups: ``fine``, the
    fine class. Published results usually report accuracy.
    """

    name = "trec"
    kind = "text"
    objective = "classification"
    summary = "5,952 questions classified by type, 6 coarse or 50 fine classes (TREC)"
    license = "not stated by the publisher (University of Illinois, Cognitive Computation Group)"
    homepage = "https://cogcomp.seas.upenn.edu/Data/QA/QC/"
    citation = "Li and Roth 2002, Learning Question Classifiers, COLING"
    notes = (
        "10 of the 500 test questions also occur in the publisher's training file. "
        "Use --set dataset.labels=fine for the 50 fine classes."
    )
    examples = {"train": 4_906, "validation": 546, "test": 500}
    inputs = INPUTS
    label_names = COARSE
    metric = "accuracy"
    target = 0.85
    recipes = {
        "lstm": {"epochs": 8, "batch_size": 32, "learning_rate": 2e-3, "dropout": 0.5},
        "lstm-small": {"epochs": 15, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.6},
    }
    task_options = {"nlp": {"vocabulary": "word", "vocab_size": 10_000, "word_dropout": 0.1, "max_length": 24}}
    Options = TrecOptions
    files = (
        RemoteFile(
            url="https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label",
            sha256="9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
            bytes=335_858,
        ),
        RemoteFile(
            url="https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label",
            sha256="033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
            bytes=23_354,
        ),
    )

    def load(self, options: TrecOptions) -> RawData:
        return read(installed(self), options)


def read(folder: Path, options: TrecOptions) -> RawData:
    """Read the splits from ``train_5500.label`` and ``TREC_10.label`` in `folder`."""
    names = COARSE if options.labels == "coarse" else FINE
    splits = []
    for path in (folder / "train_5500.label", folder / "TREC_10.label"):
        texts, labels = [], []
        for number, line in enumerate(read_lines(path, "latin-1"), 1):
            label, blank, text = line.partition(" ")
            if not blank or label not in FINE:
                raise DataError(f"{path}, line {number}: expected COARSE:fine and a question, found {line[:60]!r}")
            texts.append(text)
            labels.append(label)
        targets = [names.index(label.partition(":")[0] if options.labels == "coarse" else label) for label in labels]
        splits.append(split(texts, targets, fine=labels))
    return with_validation(splits[0], splits[1], names)

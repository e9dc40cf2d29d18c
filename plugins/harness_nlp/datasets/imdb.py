"""The ``imdb`` dataset: sentiment of long film reviews."""

from __future__ import annotations

from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RemoteFile, Split, installed
from harness_nlp.datasets.examples import INPUTS, split, with_validation

LABELS = ("negative", "positive")


class Imdb(Dataset):
    """Large Movie Review Dataset: 25,000 training and 25,000 test reviews, half of them positive.

    The training and test reviews are about different films. Reviews are long: the median is 171 words and the maximum
    2,459. HTML line breaks in the reviews are replaced with spaces. The validation split is 10% of the training reviews
    in each class. Duplicate reviews are always in the same split, but reviews of the same film may be in both the
    training and validation splits. The 50,000 unlabeled reviews in the publisher's archive are not extracted.

    Inputs: ``text``, object array of str [N]. Targets: int64 [N]. Groups: ``rating``, int64 [N], the reviewer's star
    rating, 1 to 4 or 7 to 10. Published results usually report accuracy.
    """

    name = "imdb"
    kind = "text"
    objective = "classification"
    summary = "50,000 long film reviews, 2 classes (Stanford)"
    license = "not stated by the publisher; research use is customary"
    homepage = "https://ai.stanford.edu/~amaas/data/sentiment/"
    citation = "Maas et al. 2011, Learning Word Vectors for Sentiment Analysis, ACL"
    notes = "123 test reviews also occur verbatim in the publisher's training set."
    examples = {"train": 22_500, "validation": 2_500, "test": 25_000}
    inputs = INPUTS
    label_names = LABELS
    metric = "accuracy"
    files = (
        RemoteFile(
            url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            bytes=84_125_825,
            members={
                "aclImdb/t*/[np]*/*.txt": "b155ae18c4016500d64b7ea091f3f04c4ea9e702ab3bdb2b4aa0effbd4da11c6",
            },
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from ``aclImdb/{train,test}/{neg,pos}/<id>_<rating>.txt`` in `folder`."""
    return with_validation(_read(folder / "aclImdb" / "train"), _read(folder / "aclImdb" / "test"), LABELS)


def _read(folder: Path) -> Split:
    texts, targets, ratings = [], [], []
    for target, name in enumerate(("neg", "pos")):
        paths = {tuple(map(int, path.stem.split("_"))): path for path in (folder / name).glob("*_*.txt")}
        if not paths:
            raise DataError(f"{folder / name} has no reviews named <id>_<rating>.txt")
        for (_, rating), path in sorted(paths.items()):
            texts.append(path.read_text(encoding="utf-8").replace("<br />", " "))
            targets.append(target)
            ratings.append(rating)
    return split(texts, targets, rating=ratings)

"""The ``ag-news`` dataset: topics of news items."""

from __future__ import annotations

import csv
from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RemoteFile, Split, installed
from harness_nlp.datasets.examples import INPUTS, split, with_validation


class AgNews(Dataset):
    r"""AG's corpus of news articles in the version of Zhang et al. 2015: 120,000 training and 7,600 test items.

    Each of the 4 topics has 30,000 training and 1,900 test items. Each text is the title followed by the description.
    The publisher writes line breaks as backslashes, which are replaced with spaces. The validation split is about 10%
    of the training items in each topic. Duplicate items are always in the same split. Inputs: ``text``, object array
    of str [N]. Targets: int64 [N]. Published results usually report accuracy (or error).

    **The full download has not been tested.** The format is documented in the archive's ``readme.txt``: ``train.csv``,
    ``test.csv`` and ``classes.txt``, with three quoted columns (class from 1 to 4, title, description) and doubled
    quotation marks. The archive's URL, size and SHA-256 come from TensorFlow Datasets
    (``ag_news_subset/checksums.tsv``).
    """

    name = "ag-news"
    kind = "text"
    objective = "classification"
    summary = "127,600 news items, 4 topics (AG's corpus, Zhang et al. 2015)"
    license = "non-commercial use (http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html)"
    homepage = "http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html"
    citation = "Zhang, Zhao and LeCun 2015, Character-level Convolutional Networks for Text Classification, NeurIPS"
    notes = "Implemented from the publisher's documented format; the full download has not been tested."
    examples = {"train": 108_000, "validation": 12_000, "test": 7_600}
    inputs = INPUTS
    label_names = ("World", "Sports", "Business", "Sci/Tech")
    metric = "accuracy"
    files = (
        RemoteFile(
            url="https://drive.google.com/uc?export=download&id=0Bz8a_Dbh9QhbUDNpeUdjb0wxRms",
            sha256="4e2fc37d369e6e317a8b62d0d2f11d379f8c3dde60c07c35a46b069a246498ad",
            bytes=11_784_327,
            extract=True,
            name="ag_news_csv.tar.gz",
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        return read(installed(self))


def read(folder: Path) -> RawData:
    """Read the splits from ``ag_news_csv/{train,test}.csv`` and ``ag_news_csv/classes.txt`` in `folder`."""
    folder = folder / "ag_news_csv"
    topics = (folder / "classes.txt").read_text(encoding="utf-8").split()
    return with_validation(_read(folder / "train.csv", topics), _read(folder / "test.csv", topics), topics)


def _read(path: Path, topics: list[str]) -> Split:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    for row in rows:
        if len(row) != 3 or row[0] not in map(str, range(1, len(topics) + 1)):
            raise DataError(f"{path}: expected a class from 1 to {len(topics)}, a title and a description; found {row}")
    texts = [f"{title} {description}".replace("\\", " ") for _, title, description in rows]
    return split(texts, [int(row[0]) - 1 for row in rows])

"""The ``sms-spam`` dataset: spam detection in text messages."""

from __future__ import annotations

from pathlib import Path

from harness import DataError, Dataset, RawData, RemoteFile, SeededSplit, holdout, installed
from harness_nlp.datasets.examples import INPUTS, same_texts, split, with_validation

LABELS = ("ham", "spam")
TEST_SHARE = 0.2


class SmsSpam(Dataset[SeededSplit]):
    """SMS Spam Collection: 5,574 messages, 4,827 ham and 747 spam (13%).

    There is no published split. The test split contains 20% of each class, and the validation split contains 10% of the
    rest. The splits are drawn with the seed ``split_seed``. Duplicate messages are always in the same split (403
    messages are duplicates of another message).

    Inputs: ``text``, object array of str [N]. Targets: int64 [N], 0 for ham and 1 for spam. Published results usually
    report accuracy and, because of the imbalance, F1 or the Matthews correlation coefficient. A model that always
    predicts ham has an accuracy of 87%.
    """

    name = "sms-spam"
    kind = "text"
    objective = "classification"
    summary = "5,574 text messages, ham or spam, imbalanced (UCI)"
    license = "CC BY 4.0 (UCI Machine Learning Repository)"
    homepage = "https://archive.ics.uci.edu/dataset/228/sms+spam+collection"
    citation = "Almeida, Gomez Hidalgo and Yamakami 2011, Contributions to the Study of SMS Spam Filtering, DocEng"
    notes = "There is no published split. Splits are drawn at random with a seed; duplicates stay in the same split."
    examples = {"train": 4_015, "validation": 445, "test": 1_114}
    inputs = INPUTS
    label_names = LABELS
    metric = "accuracy"
    Options = SeededSplit
    files = (
        RemoteFile(
            url="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            bytes=207_707,
            members={"SMSSpamCollection": "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"},
        ),
    )

    def load(self, options: SeededSplit) -> RawData:
        return read(installed(self), options)


def read(folder: Path, options: SeededSplit) -> RawData:
    """Read ``SMSSpamCollection`` in `folder` and split it."""
    path = folder / "SMSSpamCollection"
    texts, targets = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
        label, tab, text = line.partition("\t")
        if not tab or label not in LABELS:
            raise DataError(f"{path}, line {number}: expected ham or spam, a tab and a message, found {line[:60]!r}")
        texts.append(text)
        targets.append(LABELS.index(label))
    everything = split(texts, targets)
    rest, test = holdout(everything.targets, TEST_SHARE, seed=options.split_seed, groups=same_texts(texts))
    return with_validation(everything.take(rest), everything.take(test), LABELS)

"""The ``wnut17`` dataset: novel and emerging entities in social media."""

from __future__ import annotations

from pathlib import Path

from harness import DataError, Dataset, NoOptions, RawData, RemoteFile, installed
from harness_ner.tagged import INPUTS, Sentence, label_names, split

KINDS = ("corporation", "creative-work", "group", "location", "person", "product")
FILES = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
_AT = "https://raw.githubusercontent.com/leondz/emerging_entities_17/e52a2d2a71ac1a051ca2d532eef28653c5c02603/"


class Wnut17(Dataset):
    """Shared task of the third Workshop on Noisy User-generated Text, with 6 entity types and the published splits.

    The training sentences are tweets. The validation and test sentences come from YouTube, Reddit, Stack Exchange and
    Twitter, and were selected because they contain entities that do not occur in the training split. Published results
    report the entity-level F1 score.

    Inputs: ``words``, object array [N] of tuples of str. Targets: int64 [N, W], the tag of each word.
    """

    name = "wnut17"
    kind = "tagged-text"
    objective = "token_classification"
    summary = "novel and emerging entities of 6 types in 5,690 sentences from social media (WNUT 2017)"
    license = "CC BY 4.0"
    homepage = "https://noisy-text.github.io/2017/emerging-rare-entities.html"
    citation = (
        "Derczynski et al. 2017, Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition, W-NUT"
    )
    notes = (
        "The publisher's splits are used. 103 training, 3 validation and 7 test sentences occur twice. The best system "
        "of the shared task had an F1 score of 0.42 over all six types. Models trained from scratch have much lower "
        "scores. "
        "A few sentences are very long. With a limit of 128 tokens, 0.8% of the words in the test split are not scored "
        "(details.unscored_share). With --set task.max_length=240, all words are scored, but training takes twice as "
        "long."
    )
    examples = {"train": 3_394, "validation": 1_009, "test": 1_287}
    inputs = INPUTS
    label_names = label_names(KINDS)
    metric = "entity_f1"
    task_options = {"ner": {"max_length": 128}}
    files = (
        RemoteFile(
            url=_AT + FILES[0],
            sha256="731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
            bytes=493_781,
        ),
        RemoteFile(
            url=_AT + FILES[1],
            sha256="e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
            bytes=114_749,
        ),
        RemoteFile(
            url=_AT + FILES[2],
            sha256="2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0",
            bytes=192_425,
        ),
    )

    def load(self, options: NoOptions) -> RawData:
        folder = installed(self)
        train, validation, test = (split(read(folder / name), self.label_names) for name in FILES)
        return RawData(train=train, validation=validation, test=test, label_names=self.label_names)


def read(path: Path) -> list[Sentence]:
    """Read a CoNLL file. Each line contains a word, a tab and the tag of the word. A blank line ends a sentence."""
    sentences: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        word, tab, tag = line.partition("\t")
        if not line.strip():
            sentences.append([])
        elif tab and word.strip() and tag.strip():
            sentences[-1].append((word, tag.strip()))
        else:
            raise DataError(
                f"{path}, line {number}: expected a word and its tag, separated by a tab, found {line[:60]!r}"
            )
    return [sentence for sentence in sentences if sentence]

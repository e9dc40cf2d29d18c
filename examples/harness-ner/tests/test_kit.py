"""The conformance kit's rules for everything that the package brings."""

from __future__ import annotations

from typing import Any

import pytest

from harness import IGNORED
from harness.testing import DatasetSuite, MetricSuite, ModelSuite, NetworkSuite, PluginSuite, TaskSuite

OUT, BX, IX, BY = range(4)
"""As the kit numbers made-up tags: O, B-0, I-0, B-1."""


def said(*classes: list[int]) -> list[Any]:
    """Logits ``[N, L, 4]`` of these classes."""
    return [[[9.0 if number == one else 0.0 for number in range(4)] for one in sentence] for sentence in classes]


TARGETS = [[BX, IX, OUT, BY], [BX, OUT, IGNORED, IGNORED]]
"""Three entities."""
SAID = said([BX, IX, BY, BY], [BX, IX, BX, BY])
"""Four: the first is right, the third too; of the second sentence the end is wrong, and what follows does not count."""


class TestPlugin(PluginSuite):
    name = "ner"


class TestSentences(DatasetSuite):
    name = "cldr-sentences"


class TestWnut17(DatasetSuite):
    name = "wnut17"


class TestTask(TaskSuite):
    name = "ner"


class TestModel(ModelSuite):
    name = "bert-tagger"


class TestF1(MetricSuite):
    name = "entity_f1"
    cases = (
        (TARGETS, SAID, 2 * 2 / (3 + 4)),
        ([[BX]], said([BX]), 1.0),
        ([[BX]], said([OUT]), 0.0),
        ([[OUT]], said([OUT]), None),
    )


class TestPrecision(MetricSuite):
    name = "entity_precision"
    cases = (
        (TARGETS, SAID, 2 / 4),
        ([[BX]], said([OUT]), 0.0),
        ([[OUT]], said([BX]), 0.0),
        ([[OUT]], said([OUT]), None),
    )


class TestRecall(MetricSuite):
    name = "entity_recall"
    cases = ((TARGETS, SAID, 2 / 3), ([[BX]], said([OUT]), 0.0), ([[OUT]], said([BX]), None))


class TestAccuracy(MetricSuite):
    name = "token_accuracy"
    cases = ((TARGETS, SAID, 4 / 6), ([[BX]], said([OUT]), 0.0), ([[OUT, IGNORED]], said([OUT, BX]), 1.0))


@pytest.mark.slow
class TestTorch(NetworkSuite):
    name = "bert-tagger/torch"


@pytest.mark.slow
class TestTensorflow(NetworkSuite):
    name = "bert-tagger/tensorflow"

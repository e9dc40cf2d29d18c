"""Conformance tests for all plugins of the package."""

from __future__ import annotations

from typing import Any

import pytest

from harness import IGNORED
from harness.testing import DatasetSuite, MetricSuite, ModelSuite, NetworkSuite, PluginSuite, TaskSuite

OUT, BX, IX, BY = range(4)
"""Classes of the conformance kit's synthetic tags: O, B-0, I-0, B-1."""


def logits(*classes: list[int]) -> list[Any]:
    """Return logits ``[N, L, 4]`` that predict these classes."""
    return [[[9.0 if number == one else 0.0 for number in range(4)] for one in sentence] for sentence in classes]


TARGETS = [[BX, IX, OUT, BY], [BX, OUT, IGNORED, IGNORED]]
"""Tags with three entities."""
OUTPUTS = logits([BX, IX, BY, BY], [BX, IX, BX, BY])
"""Predictions with four entities. The first and the third entity are correct. In the second sentence, the
entity ends at the wrong position, and ignored positions are not counted."""


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
        (TARGETS, OUTPUTS, 2 * 2 / (3 + 4)),
        ([[BX]], logits([BX]), 1.0),
        ([[BX]], logits([OUT]), 0.0),
        ([[OUT]], logits([OUT]), None),
    )


class TestPrecision(MetricSuite):
    name = "entity_precision"
    cases = (
        (TARGETS, OUTPUTS, 2 / 4),
        ([[BX]], logits([OUT]), 0.0),
        ([[OUT]], logits([BX]), 0.0),
        ([[OUT]], logits([OUT]), None),
    )


class TestRecall(MetricSuite):
    name = "entity_recall"
    cases = ((TARGETS, OUTPUTS, 2 / 3), ([[BX]], logits([OUT]), 0.0), ([[OUT]], logits([BX]), None))


class TestAccuracy(MetricSuite):
    name = "token_accuracy"
    cases = ((TARGETS, OUTPUTS, 4 / 6), ([[BX]], logits([OUT]), 0.0), ([[OUT, IGNORED]], logits([OUT, BX]), 1.0))


@pytest.mark.slow
class TestTorch(NetworkSuite):
    name = "bert-tagger/torch"


@pytest.mark.slow
class TestTensorflow(NetworkSuite):
    name = "bert-tagger/tensorflow"

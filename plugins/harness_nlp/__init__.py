"""Text: the task ``nlp``, the dataset ``cldr-langid``, the models ``bert`` and ``lstm``."""

from __future__ import annotations

from collections.abc import Iterator

from harness import Dataset, Model, Task, hookimpl


@hookimpl
def harness_tasks() -> Iterator[Task]:
    from harness_nlp.task import TextClassification

    yield TextClassification()


@hookimpl
def harness_datasets() -> Iterator[Dataset]:
    from harness_nlp.cldr_langid import CldrLangid

    yield CldrLangid()


@hookimpl
def harness_models() -> Iterator[Model]:
    from harness_nlp.models.bert import Bert
    from harness_nlp.models.lstm import Lstm

    yield Bert()
    yield Lstm()

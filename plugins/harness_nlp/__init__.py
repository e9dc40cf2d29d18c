"""Text classification: the ``nlp`` task, its datasets, and the models ``bert`` and ``lstm``."""

from __future__ import annotations

from collections.abc import Iterator

from harness import Dataset, Model, Task, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterator[Task]:
    from harness_nlp.task import TextClassification

    yield TextClassification()


@hookimpl
def harness_datasets() -> Iterator[Dataset]:
    from harness_nlp.cldr_langid import CldrLangid
    from harness_nlp.datasets.ag_news import AgNews
    from harness_nlp.datasets.banking77 import Banking77
    from harness_nlp.datasets.imdb import Imdb
    from harness_nlp.datasets.sms_spam import SmsSpam
    from harness_nlp.datasets.sst2 import Sst2
    from harness_nlp.datasets.trec import Trec

    yield CldrLangid()
    yield Sst2()
    yield Trec()
    yield Banking77()
    yield SmsSpam()
    yield Imdb()
    yield AgNews()


@hookimpl
def harness_models() -> Iterator[Model]:
    from harness_nlp.models.bert import Bert
    from harness_nlp.models.lstm import Lstm

    yield Bert()
    yield Lstm()

"""Named-entity recognition: the ``ner`` task, two datasets, entity metrics, and the ``bert-tagger`` model for two
backends."""

from __future__ import annotations

from collections.abc import Iterator

from harness import Dataset, Metric, Model, NetworkRef, Task, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterator[Task]:
    from harness_ner.task import NamedEntities

    yield NamedEntities()


@hookimpl
def harness_datasets() -> Iterator[Dataset]:
    from harness_ner.cldr_sentences import CldrSentences
    from harness_ner.wnut17 import Wnut17

    yield CldrSentences()
    yield Wnut17()


@hookimpl
def harness_models() -> Iterator[Model]:
    from harness_ner.bert_tagger import BertTagger

    yield BertTagger()


@hookimpl
def harness_networks() -> Iterator[NetworkRef]:
    for backend in ("torch", "tensorflow"):
        yield NetworkRef(model="bert-tagger", backend=backend, build=f"harness_ner.{backend}_network:build")


@hookimpl
def harness_metrics() -> Iterator[Metric]:
    summaries = {
        "entity_f1": "F1 over entities; an entity is correct if its type, start and end are correct (CoNLL)",
        "entity_precision": "fraction of the predicted entities that are correct",
        "entity_recall": "fraction of the true entities that are predicted correctly",
        "token_accuracy": "fraction of the words with the correct tag, including words outside entities",
    }
    for name, summary in summaries.items():
        yield Metric(
            name=name,
            objective="token_classification",
            function=f"harness_ner.scores:{name}",
            higher_is_better=True,
            summary=summary,
            bounds=(0.0, 1.0),
        )

"""Speech classification: the ``speech`` task, its datasets and the ``wav2vec2`` model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import hookimpl

if TYPE_CHECKING:
    from harness import Dataset, Model, Task

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterator[Task]:
    from .task import Speech

    yield Speech()


@hookimpl
def harness_datasets() -> Iterator[Dataset]:
    from .datasets.fsdd import Fsdd
    from .datasets.speech_commands import SpeechCommands
    from .espeak_digits import EspeakDigits

    yield EspeakDigits()
    yield Fsdd()
    yield SpeechCommands()


@hookimpl
def harness_models() -> Iterator[Model]:
    from .models.wav2vec2 import Wav2Vec2

    yield Wav2Vec2()

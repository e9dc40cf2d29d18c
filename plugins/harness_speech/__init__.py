"""Speech: classification from the raw waveform, synthesised spoken digits, wav2vec 2.0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import hookimpl

if TYPE_CHECKING:
    from harness import Dataset, Model, Task


@hookimpl
def harness_tasks() -> Iterator[Task]:
    from .task import Speech

    yield Speech()


@hookimpl
def harness_datasets() -> Iterator[Dataset]:
    from .espeak_digits import EspeakDigits

    yield EspeakDigits()


@hookimpl
def harness_models() -> Iterator[Model]:
    from .models.wav2vec2 import Wav2Vec2

    yield Wav2Vec2()

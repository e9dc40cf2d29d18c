"""Plugin for next-character prediction: an embedded text, a bigram model, and a perplexity computed batch by batch.

It is not part of the distribution in this directory; tests load it with ``--plugin harness_toy_language``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from harness_toy import RECIPE, Affine, Config
from harness_toy_positions import PositionsBackend, ToyPositions

import harness
from harness import (
    IGNORED,
    Binding,
    DataInfo,
    InputSpec,
    Metric,
    Network,
    NetworkRef,
    NoOptions,
    Parameter,
    PreparedData,
    RawData,
    Split,
)

HARNESS_API_VERSION = "1.2"

CHARACTERS, LENGTH = tuple(" abcdefghijklmnopqrstuvwxyz"), 16
TEXT = (
    "the harness trains the same model on the same data under different frameworks and reports what each one scores "
    "and what it costs so that people can choose a framework a precision or a machine watch a stack for regressions "
    "and publish a comparison that others reproduce with one command and each number states its uncertainty because "
    "raw samples are kept and a failed run is a row with its reason and every plugin is found and loaded like another "
)


class Sentences(harness.Dataset):
    """Dataset of pieces of a text. The target of each character is the character that follows it."""

    name, kind, objective = "toy-sentences", "characters", "token_classification"
    summary, license, label_names = "the next character in an embedded text", "CC0-1.0", CHARACTERS

    def load(self, options: NoOptions) -> RawData:
        import numpy as np

        numbers = np.array([CHARACTERS.index(letter) for letter in TEXT])

        def split(starts: Any) -> Split:
            places = starts[:, None] + np.arange(LENGTH)
            following = numbers[np.minimum(places + 1, len(numbers) - 1)]
            following[::3, -4:] = IGNORED
            groups = {"third": np.where(np.arange(len(starts)) % 3 == 0, "shortened", "whole")}
            return Split(inputs={"characters": numbers[places]}, targets=following, groups=groups)

        train, validation, test = np.split(np.arange(0, len(numbers) - LENGTH), [240, 310])
        return RawData(train=split(train), validation=split(validation), test=split(test), label_names=CHARACTERS)


class NextCharacter(harness.Task):
    name, kind, produces, objective = "toy-next", "characters", "one-hot", "token_classification"
    summary, default_dataset, default_model = "the next character", "toy-sentences", "toy-bigram"
    metric, metrics, recipe = "toy_perplexity", ("toy_perplexity", "toy_nats"), RECIPE

    def prepare(self, data: RawData, options: NoOptions) -> PreparedData:
        import numpy as np

        def prepared(split: Split) -> Split:
            one_hot = np.eye(len(CHARACTERS), dtype=np.float32)[split.inputs["characters"]]
            return Split(inputs={"features": one_hot}, targets=split.targets, groups=split.groups)

        info = DataInfo(
            kind=self.produces,
            inputs={"features": InputSpec(shape=(LENGTH, len(CHARACTERS)), dtype="float32")},
            objective=self.objective,
            outputs=len(CHARACTERS),
            label_names=data.label_names,
        )
        train, validation, test = map(prepared, (data.train, data.validation, data.test))
        return PreparedData(train=train, validation=validation, test=test, info=info)


class Bigram(ToyPositions):
    name, variants = "toy-bigram", {"toy-bigram": {}}
    accepts = ("one-hot",)

    def parameters(self, config: Config, info: DataInfo) -> Sequence[Parameter]:
        weight = Parameter(name="linear.weight", shape=(info.outputs, len(CHARACTERS)), init="normal", decay=True)
        return [weight, Parameter(name="linear.bias", shape=(info.outputs,))]

    def flops_per_sample(self, config: Config, info: DataInfo) -> float:
        """Return 2 x characters of an example x distinct characters x outputs."""
        return 2.0 * LENGTH * len(CHARACTERS) * info.outputs


def build(config: Config, info: DataInfo, dropout: float) -> Network:
    module = Affine(len(CHARACTERS), info.outputs, bias=True)
    bindings = {"linear.weight": Binding("weight", axes=(1, 0)), "linear.bias": Binding("bias")}
    return Network(module=module, bindings=bindings)


def losses(targets: Any, outputs: Any) -> Any:
    """Return the negative log-likelihood of each position, ``[N, L]``, or 0 at positions without a target."""
    import numpy as np
    from scipy.special import log_softmax

    known = targets != IGNORED
    logs = log_softmax(outputs.astype("float64"), axis=-1)
    chosen = np.take_along_axis(logs, np.where(known, targets, 0)[..., None], axis=-1)[..., 0]
    return np.where(known, -chosen, 0.0)


class Perplexity:
    """Exponential of the mean negative log-likelihood of the positions with a target."""

    sizes: ClassVar[list[int]] = []
    """Numbers of examples in the batches of all objects. Tests read and clear this list."""

    def __init__(self, info: DataInfo) -> None:
        self.total, self.count = 0.0, 0

    def update(self, targets: Any, outputs: Any) -> None:
        self.sizes.append(len(targets))
        self.total += float(losses(targets, outputs).sum())
        self.count += int((targets != IGNORED).sum())

    def compute(self) -> float:
        return math.exp(self.total / self.count)


class Nats:
    """Mean over the examples of the negative log-likelihood per position."""

    def __init__(self, info: DataInfo) -> None:
        self.info, self.total, self.count = info, 0.0, 0

    def update(self, targets: Any, outputs: Any) -> None:
        self.total += float(nats(targets, outputs, self.info).sum())
        self.count += len(targets)

    def compute(self) -> float:
        return self.total / self.count


def nats(targets: Any, outputs: Any, info: DataInfo) -> Any:
    """Return the negative log-likelihood per position of each example, ``[N]``."""
    return losses(targets, outputs).sum(axis=1) / (targets != IGNORED).sum(axis=1)


@harness.hookimpl
def harness_tasks() -> Iterable[harness.Task]:
    yield NextCharacter()


@harness.hookimpl
def harness_datasets() -> Iterable[harness.Dataset]:
    yield Sentences()


@harness.hookimpl
def harness_models() -> Iterable[harness.Model]:
    yield Bigram()


@harness.hookimpl
def harness_networks() -> Iterable[NetworkRef]:
    yield NetworkRef(model="toy-bigram", backend="toy-language", build=f"{__name__}:build")


class LanguageBackend(PositionsBackend):
    name = "toy-language"


@harness.hookimpl
def harness_backends() -> Iterable[harness.Backend]:
    yield LanguageBackend()


@harness.hookimpl
def harness_metrics() -> Iterable[Metric]:
    settings: dict[str, Any] = {"objective": "token_classification", "higher_is_better": False, "streaming": True}
    yield Metric(
        name="toy_perplexity",
        function=f"{__name__}:Perplexity",
        summary="perplexity per character",
        unit="perplexity",
        bounds=(1.0, None),
        **settings,
    )
    yield Metric(
        name="toy_nats",
        function=f"{__name__}:Nats",
        per_example=f"{__name__}:nats",
        summary="negative log-likelihood per character",
        unit="nat",
        bounds=(0.0, None),
        **settings,
    )

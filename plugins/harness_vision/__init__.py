"""Image classification: the ``vision`` task, its datasets and the ResNet family."""

from __future__ import annotations

from collections.abc import Iterable

from harness import Dataset, Model, Task, hookimpl

HARNESS_API_VERSION = "1.0"


@hookimpl
def harness_tasks() -> Iterable[Task]:
    from harness_vision.task import VisionTask

    yield VisionTask()


@hookimpl
def harness_datasets() -> Iterable[Dataset]:
    from harness_vision.datasets.cifar10 import Cifar10
    from harness_vision.datasets.mnist import FashionMnist, Mnist
    from harness_vision.digits import Digits

    yield Digits()
    yield Mnist()
    yield FashionMnist()
    yield Cifar10()


@hookimpl
def harness_models() -> Iterable[Model]:
    from harness_vision.models.resnet import ResNet

    yield ResNet()

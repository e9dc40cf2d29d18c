"""The cheap alternatives, by scikit-learn: a backend ``baseline`` of its own with models of its own.

They see the same prepared inputs and splits as every other backend's models, and are scored and timed by the same core.
Each is fitted on the whole training split at once, so that it has no epochs, rates or gradients, and is no part of a
parity check: what these rows answer is whether the expensive model is worth its cost.

To bring a model of your own to this backend, yield a `harness.NetworkRef` with ``backend="baseline"`` and a ``build``
whose `harness.Network` has a `Baseline` as its ``module``, and no bindings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from harness import Model, NetworkRef, Session, SessionRequest

HARNESS_API_VERSION = "1.0"


@dataclass(frozen=True)
class Baseline:
    """What is fitted and asked: a scikit-learn classifier or regressor, on numbers made of the prepared inputs."""

    features: Callable[[Mapping[str, Any]], Any]
    """Prepared inputs, arrays ``[N, ...]`` under their names -> what `estimator` takes. It learns nothing."""
    estimator: Any


class BaselineBackend(harness.Backend):
    name = "baseline"
    summary = "scikit-learn's cheap alternatives, fitted at once on the CPU"
    requires = {"sklearn": "pip install scikit-learn", "scipy": "pip install scipy"}
    packages = ("scikit-learn", "scipy")
    trains_by_steps = False
    default_models = ("tfidf-logreg", "logreg", "mfcc-svm", "ridge", "majority", "mean")

    def devices(self) -> Sequence[harness.DeviceInfo]:
        return [harness.DeviceInfo(name="cpu", description="the host, by scikit-learn", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> Session:
        from harness_baselines.session import BaselineSession

        return BaselineSession(request)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield BaselineBackend()


@harness.hookimpl
def harness_models() -> Iterator[Model]:
    from harness_baselines import models

    yield from models.ALL


@harness.hookimpl
def harness_networks() -> Iterator[NetworkRef]:
    from harness_baselines import models

    for model in models.ALL:
        build = f"harness_baselines.estimators:{model.name.replace('-', '_')}"
        yield harness.NetworkRef(model=model.name, backend="baseline", build=build)

"""Inexpensive scikit-learn models as baselines: the ``baseline`` backend and its models.

Baselines receive the same prepared inputs and splits as models on other backends and are evaluated and timed in the
same way. Baseline scores show whether an expensive model is worth its cost. Each baseline is fitted on the entire
training split at once. A baseline therefore has no epochs, learning rate or gradients, and is excluded from parity
checks.

To add a model to this backend, yield a `harness.NetworkRef` with ``backend="baseline"`` and a ``build`` function. The
function returns a `harness.Network` without bindings, whose ``module`` is a `Baseline`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from harness import Model, NetworkRef, Session, SessionRequest

HARNESS_API_VERSION = "1.2"


@dataclass(frozen=True)
class Baseline:
    """A scikit-learn estimator and a function that computes its features."""

    features: Callable[[Mapping[str, Any]], Any]
    """Function that converts the prepared inputs to the input of `estimator`. The inputs are arrays of shape ``[N,
    ...]`` in a dict, keyed by input name. The function is not fitted to data."""
    estimator: Any
    """Unfitted scikit-learn classifier or regressor."""


class BaselineBackend(harness.Backend):
    """Backend that fits scikit-learn estimators on the CPU."""

    name = "baseline"
    summary = "inexpensive scikit-learn models, fitted in one step on the CPU"
    requires = {"sklearn": "pip install scikit-learn", "scipy": "pip install scipy"}
    packages = ("scikit-learn", "scipy")
    trains_by_steps = False
    example_weights = True
    default_models = ("tfidf-logreg", "logreg", "mfcc-svm", "ridge", "majority", "mean")

    def devices(self) -> Sequence[harness.DeviceInfo]:
        return [harness.DeviceInfo(name="cpu", description="host CPU with scikit-learn", precisions=("fp32",))]

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
        fitted = model.name not in ("mfcc-svm", "gradient-boosting")
        yield harness.NetworkRef(model=model.name, backend="baseline", build=build, fitted_weights=fitted)

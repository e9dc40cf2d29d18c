"""Gradient boosting with LightGBM (Ke et al. 2017): the backend ``lightgbm`` and its model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

import harness

if TYPE_CHECKING:
    from harness import DataInfo, Model, Network, NetworkRef, Parameter, Session, SessionRequest

HARNESS_API_VERSION = "1.2"


class BoostingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LightGBM parameters, with LightGBM's defaults except for `num_iterations` and `early_stopping_round`."""

    num_iterations: int = 1000
    """Maximum number of boosting rounds. Each round adds one tree, or one tree per class if there are more than two
    classes."""
    early_stopping_round: int = 20
    """Number of consecutive rounds without improvement in the validation loss before training stops. The trees up to
    the best round are used for predictions. 0 disables early stopping."""
    learning_rate: float = 0.1
    """Factor by which the output of each tree is multiplied."""
    num_leaves: int = 31
    """Maximum number of leaves in a tree."""
    min_data_in_leaf: int = 20
    """Minimum number of training examples in a leaf."""
    feature_fraction: float = 1.0
    """Fraction of the features used to build each tree. The features are chosen at random, using the run's seed."""

    def __post_init__(self) -> None:
        for name in ("num_iterations", "learning_rate", "min_data_in_leaf"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.num_leaves < 2:
            raise ValueError(f"num_leaves must be at least 2, got {self.num_leaves}")
        if self.early_stopping_round < 0:
            raise ValueError(f"early_stopping_round must be at least 0, got {self.early_stopping_round}")
        if not 0 < self.feature_fraction <= 1:
            raise ValueError(f"feature_fraction must be greater than 0 and at most 1, got {self.feature_fraction}")


class Boosting(harness.Model[BoostingConfig]):
    """Gradient-boosted decision trees (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision
    Tree")."""

    name = "lightgbm"
    summary = "gradient-boosted decision trees with early stopping (Ke et al. 2017)"
    accepts = ("features", "image")
    objectives = ("classification", "regression")
    Config = BoostingConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"lightgbm": {}}

    def parameters(self, config: BoostingConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return no parameters, because trees have no canonical arrays."""
        return ()

    def flops_per_sample(self, config: BoostingConfig, info: DataInfo) -> float:
        """Return 0, which means unknown: the number of trees depends on the data."""
        return 0.0


def build(config: BoostingConfig, info: DataInfo, dropout: float) -> Network:
    """Return the model's configuration as the module, because `harness_lightgbm.session` trains the trees."""
    return harness.Network(module=config, bindings={})


class LightgbmBackend(harness.Backend):
    """Backend that fits gradient-boosted trees with LightGBM on the CPU."""

    name = "lightgbm"
    summary = "LightGBM on the CPU, fitted in one call with early stopping"
    requires: ClassVar[Mapping[str, str]] = {"lightgbm": "pip install lightgbm"}
    packages = ("lightgbm",)
    trains_by_steps = False
    example_weights = True
    default_models = ("lightgbm",)

    def devices(self) -> Sequence[harness.DeviceInfo]:
        return [harness.DeviceInfo(name="cpu", description="host CPU with LightGBM", precisions=("fp32",))]

    def open(self, request: SessionRequest) -> Session:
        from harness_lightgbm.session import LightgbmSession

        return LightgbmSession(request)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield LightgbmBackend()


@harness.hookimpl
def harness_models() -> Iterator[Model]:
    yield Boosting()


@harness.hookimpl
def harness_networks() -> Iterator[NetworkRef]:
    yield harness.NetworkRef(model="lightgbm", backend="lightgbm", build="harness_lightgbm:build")

"""Small models and random data for testing the sessions of a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.interfaces import Backend, Batch, Model, Parameter, Session, SessionRequest
from harness.plugins import discover, resolve
from harness.plugins.catalog import Catalog
from harness.records import DataInfo, InputSpec, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BATCH, CLASSES = 6, 5
LENGTH, VOCABULARY = 9, 40
SHAPES = {"image": (15, 12, 3), "waveform": (2000,), "features": (11,)}
INPUTS = {"image": "pixel_values", "waveform": "input_values", "features": "features"}
SGD = Recipe(optimizer="sgd")


def example(kind: str, size: int = BATCH) -> tuple[DataInfo, dict[str, Array]]:
    """Return a description of one kind of prepared data, and random inputs ``[size, ...]`` with the usual dtypes."""
    rng = np.random.default_rng(7)
    details: dict[str, Any] = {}
    if kind == "tokens":
        lengths = rng.integers(2, LENGTH + 1, size)
        mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
        ids = (rng.integers(1, VOCABULARY, (size, LENGTH)) * mask).astype(np.int32)
        inputs: dict[str, Array] = {"input_ids": ids, "attention_mask": mask}
        details = {"vocab_size": VOCABULARY, "pad_id": 0}
    else:
        inputs = {INPUTS[kind]: rng.standard_normal((size, *SHAPES[kind])).astype(np.float32)}
    specs = {name: InputSpec(shape=array.shape[1:], dtype=array.dtype.name) for name, array in inputs.items()}
    return DataInfo(kind=kind, inputs=specs, objective="classification", outputs=CLASSES, details=details), inputs


def weights_for(parameters: Sequence[Parameter], seed: int = 3) -> dict[str, Array]:
    """Draw random canonical weights that preserve the scale of activations. No array is constant, so every parameter
    affects the output."""
    rng = np.random.default_rng(seed)
    weights = {}
    for parameter in parameters:
        if parameter.name.endswith(("running_var", "weight_g")) or parameter.init == "ones":
            value = rng.uniform(0.5, 1.5, parameter.shape)
        else:
            fan_in = int(np.prod(parameter.shape[1:])) if len(parameter.shape) > 1 else 4
            value = rng.standard_normal(parameter.shape) / np.sqrt(fan_in)
        weights[parameter.name] = value.astype(np.float32)
    return weights


@dataclass(frozen=True)
class SessionCases:
    """Small models for testing one backend. By default, sessions use fp32, the CPU and seed 0."""

    backend_name: str
    models: Mapping[str, tuple[str, Mapping[str, Any]]]
    """Model name and the options that make the model small, keyed by case name."""
    threads: int = 1

    @cached_property
    def catalog(self) -> Catalog:
        return discover()

    @property
    def backend(self) -> Backend:
        return self.catalog.backend(self.backend_name)

    def model(self, case: str) -> tuple[Model, Any]:
        """Return the model family and the configuration for a case."""
        name, changes = self.models[case]
        family, variant = self.catalog.model(name)
        return family, family.Config(**{**family.variants[variant], **changes})

    def kind(self, case: str) -> str:
        return self.model(case)[0].accepts[0]

    def batch(self, case: str, size: int = BATCH) -> Batch:
        """Return a batch with random inputs and random teacher logits."""
        logits = np.random.default_rng(11).standard_normal((size, CLASSES)).astype(np.float32)
        return Batch(example(self.kind(case), size)[1], np.arange(size) % CLASSES, teacher_logits=logits)

    def _parameters(self, case: str, info: DataInfo | None = None) -> tuple[Parameter, ...]:
        """Return the parameters of a case's model without importing the network or framework."""
        family, config = self.model(case)
        return tuple(family.parameters(config, info or example(family.accepts[0])[0]))

    def request(self, case: str, **changes: Any) -> SessionRequest:
        family, config = self.model(case)
        info = changes.pop("info", None) or example(family.accepts[0])[0]
        network = self.catalog.network(family.name, self.backend_name)
        assert network is not None, f"backend {self.backend_name} has no network for {family.name}"
        values: dict[str, Any] = {
            "build": resolve(network.build),
            "config": config,
            "info": info,
            "parameters": self._parameters(case, info),
            "recipe": SGD,
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "seed": 0,
            "threads": self.threads,
        }
        return SessionRequest(**(values | changes))

    def open(self, case: str, **changes: Any) -> Session:
        """Open a session with weights from `weights_for`."""
        request = self.request(case, **changes)
        session = self.backend.open(request)
        session.set_weights(weights_for(request.parameters))
        return session


def losses(session: Session, batch: Batch, rates: Sequence[float]) -> list[float]:
    """Take one training step on `batch` with each learning rate, and return the losses."""
    return [float(session.fetch(session.train_step(batch, rate))) for rate in rates]

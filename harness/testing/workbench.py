"""The `Workbench` class, which opens a backend's sessions with a small model and real data to check the rules."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import CombinationError
from harness.execute.backends import open_session
from harness.interfaces import Backend, Batch, Model, PreparedData, Session, SessionRequest
from harness.measure.losses import fetched_loss
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import ExportedModel, RunSpec, TrainedWeights
from harness.testing.rule import NotChecked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

EXAMPLES = 16
"""Number of examples in a batch."""


class Workbench:
    """A backend together with a model, data and settings.

    `model` is the name of the model family. By default, a model for the smallest default dataset is chosen, preferably
    one with dropout.
    """

    def __init__(self, backend: Backend, catalog: Catalog, model: str = "") -> None:
        self.backend, self.catalog, self._model = backend, catalog, model
        self.does_not_open = False

    @cached_property
    def spec(self) -> RunSpec:
        """Settings for a run on the CPU with one thread. Raises `NotChecked` if no suitable model and dataset are
        available."""
        from harness.plan.expand import expand_all, suits
        from harness.plan.selection import Selection

        if reason := missing(self.backend.requires):
            raise NotChecked(reason)
        pairs = [
            (provided.value, model.value)
            for provided in self.catalog.tasks.values()
            for model in self.catalog.models.values()
            if suits(provided.value, model.value)
            and self._can_open(model.value.name)
            and self._model in ("", model.value.name)
            and self._is_here(provided.value.default_dataset)
        ]
        if not pairs:
            raise NotChecked(
                "no model for a task with installed data has a network for this backend; "
                "yield a harness.NetworkRef in harness_networks"
            )
        task, family = min(pairs, key=lambda pair: (self._size(pair[0].default_dataset), not pair[1].has_dropout))
        trainer = self._trainer(family.name)
        selection = Selection(
            tasks=(task.name,), models=(family.name,), backends=(trainer,), threads=1, devices=("cpu",)
        )
        (spec,) = expand_all([selection], self.catalog, unavailable=trainer != self.backend.name)
        return msgspec.structs.replace(spec, device="cpu", backend=self.backend.name)

    def _can_open(self, family: str) -> bool:
        if not self.backend.executes:
            return self.catalog.network(family, self.backend.name) is not None
        try:
            return bool(self._exporter(family))
        except CombinationError:
            return False

    def _exporter(self, family: str) -> str:
        from harness.plan.exporter import exporter_for

        return exporter_for(self.backend.executes, family, "", self.catalog)

    @cached_property
    def _opened_spec(self) -> RunSpec:
        """Spec of the sessions. If the backend executes exported models, the initial weights are saved in a temporary
        folder that the spec refers to."""
        if not self.backend.executes:
            return self.spec
        from harness.execute.weights import save
        from harness.records.arrays import digest
        from harness.records.store import WEIGHTS

        folder = self._folder.name
        save(Path(folder) / WEIGHTS, self.weights)
        exporter = self._exporter(self.model.name)
        trained = TrainedWeights(
            run="with initial weights",
            backend=exporter,
            digest=digest(self.weights),
            dataset_digest=self.data.digest,
            path=folder,
            exported=ExportedModel(exporter=exporter),
        )
        return msgspec.structs.replace(self.spec, weights=trained)

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="harness-check-")

    def _trainer(self, family: str) -> str:
        """Return the backend that provides the training settings: this backend, or another backend if this one cannot
        train."""
        if self.backend.trains:
            return self.backend.name
        for model, name in self.catalog.networks:
            if model == family and self.catalog.backend(name).trains:
                return name
        raise NotChecked(f"no installed backend can train the model {family!r}, so there are no weights to load")

    def _is_here(self, dataset: str) -> bool:
        provided = self.catalog.datasets.get(dataset)
        return provided is not None and not provided.value.files and missing(provided.value.requires) is None

    def _size(self, dataset: str) -> float:
        return sum(self.catalog.dataset(dataset).examples.values()) or float("inf")

    @cached_property
    def data(self) -> PreparedData:
        from harness.execute.preparation import prepare_data

        return prepare_data(self.catalog, self.spec)

    @cached_property
    def request(self) -> SessionRequest:
        """Request for an fp32 session with seed 0 and one thread. Dropout and regularization are disabled."""
        from harness.execute.exporting import executable_model
        from harness.execute.preparation import choose_device, preparation_of

        device = choose_device(self.backend, self.spec)
        request = preparation_of(self._opened_spec, self.catalog, device, self.data, executable_model).request
        recipe = msgspec.structs.replace(request.recipe, dropout=0.0, label_smoothing=0.0, weight_decay=0.0)
        return dataclasses.replace(request, recipe=recipe)

    @property
    def model(self) -> Model:
        return self.catalog.model(self.spec.model)[0]

    @cached_property
    def weights(self) -> dict[str, Array]:
        from harness.execute.declarations import declared_parameters
        from harness.execute.weights import initial_weights

        config = msgspec.convert(self.spec.model_options, self.model.Config)
        return initial_weights(declared_parameters(self.model, config, self.data.info), 0)

    def batch(self, start: int = 0, examples: int = EXAMPLES) -> Batch:
        """Return consecutive examples from the shuffled training split, using the same validation split as in a run."""
        import numpy as np

        order = np.random.default_rng(0).permutation(len(self.data.train))  # The examples may be sorted by class.
        split = self.data.train.take(order[(start + np.arange(examples)) % len(order)])
        inputs = {name: np.ascontiguousarray(array) for name, array in split.inputs.items()}
        validation = None if self.backend.trains_by_steps else self.data.validation
        return Batch(inputs, np.ascontiguousarray(split.targets), validation=validation)

    @contextlib.contextmanager
    def session(self, **changes: Any) -> Iterator[Session]:
        """Open a session for a modified request, and set the initial weights. The session is closed on exit."""
        if self.does_not_open:
            raise NotChecked("the session cannot be opened")
        if changes.get("precision") in self.backend.converts:
            from harness.execute.exporting import executable_model

            spec = msgspec.structs.replace(self._opened_spec, precision=changes["precision"])
            changes["exported"] = executable_model(spec, self.catalog)[0]
        session = open_session(self.backend, dataclasses.replace(self.request, **changes))
        try:
            if not self.backend.executes:
                session.set_weights(self.weights)
            yield session
        finally:
            session.close()

    def losses(self, session: Session, steps: int = 4, learning_rate: float | None = None) -> list[float]:
        """Train for a few steps and return the loss of each step."""
        rate = self.request.recipe.learning_rate if learning_rate is None else learning_rate
        return [fetched_loss(session, session.train_step(self.batch(8 * step), rate)) for step in range(steps)]

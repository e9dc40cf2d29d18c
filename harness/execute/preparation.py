"""Preparation of the data, device and session for a spec.

Runs, parity checks, audits, evaluations and latency measurements all use this module.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness import plugins
from harness.errors import DataError, HarnessError, PluginError, UnsupportedError
from harness.execute import teacher_logits
from harness.execute.backends import devices_of, open_session
from harness.execute.declarations import declared_parameters
from harness.execute.networks import checked_build
from harness.execute.training_options import class_weights, frozen_names, rate_factors, with_frozen
from harness.interfaces import (
    Backend,
    Batch,
    BuildNetwork,
    Dataset,
    DeviceInfo,
    Model,
    Network,
    PreparedData,
    RawData,
    Session,
    SessionRequest,
    Task,
)
from harness.plugins.catalog import Catalog
from harness.plugins.failures import described_with_place
from harness.records import PluginRef, RunSpec, TrainedWeights
from harness.records.recipe import for_inference


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The plugins, the prepared data and the request to open a session."""

    spec: RunSpec
    """Specification of the run, with the chosen device."""
    catalog: Catalog
    backend: Backend
    device: DeviceInfo
    data: PreparedData
    model: Model
    request: SessionRequest
    notes: Mapping[str, str] = field(default_factory=dict)
    """Description of the exported model that the backend executes."""


Executable = Callable[[RunSpec, Catalog], tuple[Path, Mapping[str, str]]]
"""Type of `harness.execute.exporting.executable_model`. Procedures that also support backends for exported models pass
this function to `prepare` or `preparation_of`."""


def prepare(spec: RunSpec, refs: Sequence[PluginRef], executable: Executable | None = None) -> Preparation:
    """Load the plugins, set the backend's environment variables, choose the device and prepare the data.

    Raises `harness.PluginError` if a plugin is broken, `harness.UnsupportedError` if the device or precision is not
    supported, and `harness.DataError` if the data cannot be used. Other exceptions raised by plugins are not caught.
    """
    catalog = load_plugins(refs)
    backend = catalog.backend(spec.backend)
    os.environ.update(backend.environment)
    device = choose_device(backend, msgspec.structs.replace(spec, devices=1))  # a preparation is for one device
    spec = msgspec.structs.replace(spec, device=device.name)
    return preparation_of(spec, catalog, device, prepare_data(catalog, spec), executable)


def preparation_of(
    spec: RunSpec, catalog: Catalog, device: DeviceInfo, data: PreparedData, executable: Executable | None = None
) -> Preparation:
    """Look up the spec's model and backend, and create the request for opening sessions.

    Raises `harness.PluginError` if a plugin is broken, and `harness.UsageError` if a recipe option is not suitable for
    the model or the data.
    """
    model, _ = catalog.model(spec.model)
    build, exported, notes = _model_source(spec, model, catalog, executable)
    config = msgspec.convert(spec.model_options, model.Config)
    declared = declared_parameters(model, config, data.info)
    frozen = frozen_names(spec.recipe, declared)
    parameters = with_frozen(declared, frozen)
    request = SessionRequest(
        build=build,
        config=config,
        info=data.info,
        parameters=parameters,
        recipe=spec.recipe if spec.weights is None else for_inference(spec.recipe),
        device=device.name,
        precision=spec.precision,
        compile=spec.compile,
        frozen=frozen,
        rate_factors=rate_factors(spec.recipe, parameters),
        class_weights=class_weights(spec.recipe, data.info),
        deterministic=spec.deterministic,
        seed=spec.seed,
        threads=spec.threads,
        exported=exported,
    )
    backend = catalog.backend(spec.backend)
    if data.train.weights is not None and spec.weights is None and not backend.example_weights:
        raise UnsupportedError(
            f"backend {spec.backend!r} does not support example weights, but the data contain them; use another backend"
        )
    return Preparation(
        spec=spec, catalog=catalog, backend=backend, device=device, data=data, model=model, request=request, notes=notes
    )


def _model_source(
    spec: RunSpec, model: Model, catalog: Catalog, executable: Executable | None
) -> tuple[BuildNetwork, Path | None, Mapping[str, str]]:
    """Return the function that builds the network, the folder of the exported model, and notes that describe the
    exported model.

    The folder is None unless the backend executes an exported model.
    """
    if not catalog.backend(spec.backend).executes:
        network = catalog.network(model.name, spec.backend)
        if network is None:
            raise PluginError(f"no plugin provides model {model.name!r} for backend {spec.backend!r}")
        return checked_build(network, catalog.backend(spec.backend).is_out_of_memory), None, {}
    if executable is None or spec.weights is None or spec.weights.exported is None:
        raise UnsupportedError(
            f"backend {spec.backend!r} executes exported models; use it with `harness run --weights RUN`"
        )
    folder, notes = executable(spec, catalog)

    def build(*_: Any) -> Network:
        raise PluginError(f"backend {spec.backend!r} executes exported models and does not build networks")

    return build, folder, notes


@contextmanager
def opened_session(prepared: Preparation, weights: Mapping[str, Any], **recipe: Any) -> Iterator[Session]:
    """Open a session with the given weights and close it on exit. The keyword arguments replace recipe fields."""
    changed = msgspec.structs.replace(prepared.request.recipe, **recipe)
    session = open_session(prepared.backend, dataclasses.replace(prepared.request, recipe=changed))
    try:
        if not prepared.backend.executes:
            session.set_weights(weights)
        yield session
    finally:
        session.close()


def fit_at_once(session: Session, prepared: Preparation) -> None:
    """Fit the session's model if the backend does not train in steps.

    Without training steps, a model must be fitted before it can predict.
    """
    if not prepared.backend.trains_by_steps:
        train = prepared.data.train
        batch = Batch(
            dict(train.inputs), train.targets, example_weights=train.weights, validation=prepared.data.validation
        )
        session.fetch(session.train_step(batch, 0.0))


def load_plugins(refs: Sequence[PluginRef]) -> Catalog:
    """Load only the plugins in `refs`. Raises `harness.PluginError` if a plugin cannot be loaded."""
    catalog = plugins.load(refs)
    if catalog.failures:
        raise PluginError("; ".join(f"plugin {f.ref.name!r}: {f.message}" for f in catalog.failures))
    return catalog


def backend_of(ref: PluginRef, name: str) -> Backend:
    """Load one plugin, set the environment variables that its backend requires, and return the backend."""
    backend = load_plugins([ref]).backend(name)
    os.environ.update(backend.environment)
    return backend


def choose_device(backend: Backend, spec: RunSpec) -> DeviceInfo:
    """Return the device named in the spec. For ``auto``, return the backend's first device.

    Raises `harness.UnsupportedError` if the device is missing or does not support the precision.
    """
    return device_for(devices_of(backend), spec)


def device_for(devices: Iterable[DeviceInfo], spec: RunSpec) -> DeviceInfo:
    """Return one of the devices of the spec's backend; see `choose_device`.

    If the spec names several devices, the first device is returned. Raises `harness.UnsupportedError` if a device is
    missing or does not support the precision.
    """
    known = {device.name: device for device in devices}
    wanted = {"auto": next(iter(known), "cpu"), "cuda": "cuda:0"}.get(spec.device, spec.device)
    if wanted not in known:
        raise UnsupportedError(
            f"backend {spec.backend!r} finds no device {spec.device!r} on this machine; "
            f"available devices: {', '.join(known) or 'none'}"
        )
    device = known[wanted]
    names = msgspec.structs.replace(spec, device=wanted).used_devices
    if absent := [name for name in names if name not in known]:
        raise UnsupportedError(
            f"the run requires the devices {', '.join(names)}, but backend {spec.backend!r} does not find "
            f"{', '.join(absent)} on this machine; available devices: {', '.join(known)}"
        )
    if spec.precision not in device.precisions:
        raise UnsupportedError(
            f"backend {spec.backend!r} cannot compute in {spec.precision} on {wanted} "
            f"({device.description}); supported precisions: {', '.join(device.precisions)}"
        )
    return device


def prepare_data(catalog: Catalog, spec: RunSpec) -> PreparedData:
    """Return the spec's dataset, prepared by its task and validated.

    If the data can be cached, they are read from the cache, or added to it if they are missing. `DataInfo.details`
    includes the details that the dataset reports. If the spec has a teacher, the training split includes the teacher's
    logits. The logits must be in the cache (`harness.execute.teacher.provide_logits`).
    """
    from harness.data import prepared_cache

    task, dataset, folder = _sources(catalog, spec)
    data = prepared_cache.load(folder) if folder else None
    if data is None:
        data = _prepared(task, dataset, spec)
        if folder and prepared_cache.save(folder, data):
            # Free the memory before the data are read from the cache, so that this run behaves like a cache hit.
            del data
            data = prepared_cache.load(folder) or _prepared(task, dataset, spec)
    info, options = data.info, msgspec.convert(spec.task_options, task.Options)
    data = teacher_logits.with_logits(data, spec)
    return dataclasses.replace(data, augment=lambda inputs, rng: task.augment(inputs, info, options, rng))


def is_cached(catalog: Catalog, spec: RunSpec) -> bool:
    """Return False if the prepared data can be cached but are not in the cache; otherwise, return True."""
    _, _, folder = _sources(catalog, spec)
    return folder is None or folder.is_dir()


def cache_data(catalog: Catalog, spec: RunSpec) -> None:
    """Prepare the data and add them to the cache that `prepare_data` reads."""
    from harness.data import prepared_cache

    task, dataset, folder = _sources(catalog, spec)
    if folder is not None:
        prepared_cache.save(folder, _prepared(task, dataset, spec))


def _sources(catalog: Catalog, spec: RunSpec) -> tuple[Task, Dataset, Path | None]:
    """Return the spec's task, dataset and cache folder. The folder is None if the data cannot be cached."""
    from harness.data import prepared_cache
    from harness.data.user_files.dataset import dataset_of

    dataset = dataset_of(spec, catalog)
    return catalog.task(spec.task), dataset, prepared_cache.entry(spec, dataset, catalog)


def _prepared(task: Task, dataset: Dataset, spec: RunSpec) -> PreparedData:
    return load_and_prepare(task, dataset, spec.dataset_options, spec.task_options)[1]


def load_and_prepare(
    task: Task, dataset: Dataset, dataset_options: Mapping[str, Any], task_options: Mapping[str, Any]
) -> tuple[RawData, PreparedData]:
    """Load, validate and prepare data without the cache. Return the raw and prepared data with their descriptions."""
    from harness.data.counts import with_counts
    from harness.data.near_duplicates import between_splits
    from harness.data.prepared import check, dataset_digest
    from harness.data.protect import read_only_raw, writable
    from harness.data.raw import check_raw
    from harness.data.suspicions import CONTRADICTORY, described
    from harness.data.user_files.dataset import UserDataset
    from harness.data.user_files.new_data import named_columns
    from harness.data.user_files.training_values import training_values
    from harness.data.weights import weighted

    with _naming(dataset, f"the dataset {dataset.name!r}"):
        raw = _resplit(dataset, dataset_options)
        check_raw(raw, task.objective)
        own = isinstance(dataset, UserDataset)
        near = () if own else between_splits(raw, dataset.kind)
    data = weighted(writable(_by_task(task, read_only_raw(raw), task_options)), raw)
    with _naming(dataset, f"the task {task.name!r}"):
        check(data, task.name)  # Detect errors of the task and non-finite values in the dataset.
    info = msgspec.structs.replace(
        data.info,
        details={**raw.details, **data.info.details},
        warnings=(*raw.warnings, *near, *data.info.warnings),
    )
    data = dataclasses.replace(
        data,
        train=dataclasses.replace(data.train, rows=raw.train.rows),
        validation=dataclasses.replace(data.validation, rows=raw.validation.rows),
        test=dataclasses.replace(data.test, rows=raw.test.rows),
        info=info,
        digest=dataset_digest(data),
        reading=training_values(raw, raw.reading or named_columns(raw)),
    )
    data = dataclasses.replace(data, info=described(data, 0 if own else CONTRADICTORY))
    return raw, dataclasses.replace(data, info=with_counts(task, data))


def _by_task(task: Task, raw: RawData, options: Mapping[str, Any]) -> PreparedData:
    """Call the task to prepare the data. Raises `harness.PluginError` if the task's code raises an exception or returns
    an object of the wrong type.
    """
    try:
        data = task.prepare(raw, msgspec.convert(options, task.Options))
    except (HarnessError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        advice = "; copy the arrays before changing them" if "read-only" in str(error) else ""
        raise PluginError(
            f"the task {task.name!r} failed to prepare the data: {described_with_place(error)}{advice}"
        ) from error
    if not isinstance(data, PreparedData):
        raise PluginError(f"the task {task.name!r} returned {type(data).__name__} instead of PreparedData")
    return data


@contextmanager
def _naming(dataset: Dataset, origin: str) -> Iterator[None]:
    """Add the dataset's name to the message of a `harness.DataError` unless the message already contains it.

    Convert any exception that is not a `harness.HarnessError` to a `harness.PluginError`. The error message names the
    source of the data.
    """
    try:
        yield
    except DataError as error:
        if dataset.name in str(error):
            raise
        raise DataError(f"dataset {dataset.name!r}: {error}") from error
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(f"{origin} returned data that cannot be checked: {described_with_place(error)}") from error


def _resplit(dataset: Dataset, options: Mapping[str, Any]) -> RawData:
    """Load the dataset. If the options of a plugin's dataset select a fold or a random split, return the selected
    split."""
    from harness.data.resampling import PooledResampling, divided
    from harness.data.user_files.dataset import UserDataset

    own, added = divided(options, dataset.Options.__struct_fields__)
    if isinstance(dataset, UserDataset) or not added:
        return _loaded(dataset, options)
    from harness.data.pooled import resplit
    from harness.data.raw import check_raw

    seed = getattr(msgspec.convert(own, dataset.Options), "split_seed", 0)
    raw = _loaded(dataset, own)
    check_raw(raw, dataset.objective)
    return resplit(raw, msgspec.convert(added, PooledResampling), dataset.objective, seed)


def _loaded(dataset: Dataset, options: Mapping[str, Any]) -> RawData:
    """Load the dataset. Raises `harness.DataError` if the dataset's installed files are damaged, and
    `harness.PluginError` if the dataset's code raises any other exception."""
    name = dataset.name
    try:
        data = dataset.load(msgspec.convert(options, dataset.Options))
    except (Exception, SystemExit) as error:
        from harness.data.cache import install_dir
        from harness.data.install import verify

        if isinstance(error, MemoryError):
            raise
        problems = verify(dataset) if dataset.files and install_dir(dataset).is_dir() else []
        if problems:
            raise DataError(
                f"dataset {name!r} is damaged; run: harness data clear {name} && harness data fetch {name}: "
                f"{problems[0]}"
            ) from error
        if isinstance(error, HarnessError):
            raise
        raise PluginError(f"the dataset {name!r} failed to load: {described_with_place(error)}") from error
    if not isinstance(data, RawData):
        raise PluginError(f"the dataset {name!r} returned {type(data).__name__} instead of RawData")
    return data


def starting_weights(prepared: Preparation) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the initial canonical weights of the session, and notes about these weights and a teacher's logits.

    If the spec uses trained weights, the trained weights are returned instead of initial weights. A note is added for
    each array that was not read from the spec's checkpoint.

    Raises `harness.DataError` if the checkpoint does not fit the model. For trained weights, `harness.DataError` is
    also raised if the data or the weights do not match those of the run that trained the weights.
    """
    from harness.execute.weights import initial_weights, pretrained_weights

    trained = prepared.spec.weights
    if trained is not None:
        if prepared.data.digest != trained.dataset_digest:
            raise DataError(
                f"run {trained.run!r} was trained on different data; restore that version of the data, or train again"
            )
        return trained_weights(prepared, trained), {}
    parameters, checkpoint = prepared.request.parameters, prepared.spec.pretrained
    initial, taught = initial_weights(parameters, prepared.spec.seed), teacher_logits.notes(prepared.data)
    if checkpoint is None:
        return initial, taught
    weights, loaded = pretrained_weights(checkpoint, prepared.model, parameters, initial)
    return weights, loaded | taught


def trained_weights(prepared: Preparation, trained: TrainedWeights) -> dict[str, Any]:
    """Read the weights of a run. Raises the same errors as `saved_weights`, and `harness.DataError` if the weights do
    not match the record of the run."""
    from harness.records.arrays import digest
    from harness.records.store import WEIGHTS

    path = Path(trained.path) / WEIGHTS
    weights = saved_weights(path, prepared)
    if digest(weights) != trained.digest:
        raise DataError(f"{path}: the weights do not match the record of run {trained.run!r}")
    return weights


def saved_weights(path: Path, prepared: Preparation) -> dict[str, Any]:
    """Read a run's saved weights. Raises `harness.RecordError` if the weights cannot be read, and `harness.PluginError`
    if the weights do not match the model."""
    from harness.execute.weights import load

    weights = load(path)
    check_weights(weights, prepared)
    return weights


def weights_of(session: Session, prepared: Preparation) -> dict[str, Any]:
    """Return the weights of the session.

    The dictionary is empty if the model is fitted in one call and has no canonical parameters, and its network does not
    set `harness.NetworkRef.fitted_weights`. In this case, the session's arrays may not be sufficient to restore the
    model.
    """
    network = prepared.catalog.network(prepared.model.name, prepared.backend.name)
    canonical = prepared.request.parameters or prepared.backend.trains_by_steps
    if not canonical and network is not None and not network.fitted_weights:
        return {}
    return session.get_weights()


def check_weights(weights: Mapping[str, Any], prepared: Preparation) -> None:
    """Raise `harness.PluginError` if the weights do not match the model's parameters.

    A model that is fitted in one call and has no canonical parameters may have any weights
    (`harness.NetworkRef.fitted_weights`).
    """
    from harness.execute.weights import check

    if prepared.request.parameters or prepared.backend.trains_by_steps:
        check(weights, prepared.request.parameters)

"""From a spec to what a session needs: what every child process does before it computes.

The pieces are functions, so that a run, a parity check and an evaluation tread the same path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness import plugins
from harness.errors import BadResultError, DataError, HarnessError, PluginError, UnsupportedError
from harness.interfaces import (
    Backend,
    Batch,
    Dataset,
    DeviceInfo,
    Model,
    PreparedData,
    RawData,
    Session,
    SessionRequest,
    Task,
)
from harness.plugins.catalog import Catalog
from harness.records import FailureKind, PluginRef, RunSpec


def load_plugins(refs: Sequence[PluginRef]) -> Catalog:
    """Exactly these plugins. Raises `harness.PluginError` where one does not load."""
    catalog = plugins.load(refs)
    if catalog.failures:
        raise PluginError("; ".join(f"plugin {f.ref.name!r}: {f.message}" for f in catalog.failures))
    return catalog


def choose_device(backend: Backend, spec: RunSpec) -> DeviceInfo:
    """The device that the spec names or leaves to the backend. Raises `harness.UnsupportedError` where it is missing or
    lacks the precision."""
    devices = {device.name: device for device in backend.devices()}
    wanted = {"auto": next(iter(devices), "cpu"), "cuda": "cuda:0"}.get(spec.device, spec.device)
    if wanted not in devices:
        raise UnsupportedError(
            f"backend {backend.name!r} finds no device {spec.device!r} here; it has: {', '.join(devices) or 'none'}"
        )
    device = devices[wanted]
    if spec.precision not in device.precisions:
        raise UnsupportedError(
            f"backend {backend.name!r} cannot compute in {spec.precision} on {wanted} "
            f"({device.description}); it can in: {', '.join(device.precisions)}"
        )
    return device


def prepare_data(catalog: Catalog, spec: RunSpec) -> PreparedData:
    """The spec's dataset as its task prepares it, checked, from the cache where an earlier run prepared it;
    `DataInfo.details` takes in what the dataset tells."""
    from harness.data import prepared_cache
    from harness.data.user_files.dataset import dataset_of

    task, dataset = catalog.task(spec.task), dataset_of(spec, catalog)
    options = msgspec.convert(spec.task_options, task.Options)
    folder = prepared_cache.entry(spec, dataset, catalog)
    data = prepared_cache.load(folder) if folder else None
    if data is None:
        data = _prepared(task, dataset, options, spec)
        if folder and prepared_cache.save(folder, data):
            del data  # its memory is free before the same comes back, as the next run will find it
            data = prepared_cache.load(folder) or _prepared(task, dataset, options, spec)
    info = data.info
    return dataclasses.replace(data, augment=lambda inputs, rng: task.augment(inputs, info, options, rng))


def is_prepared(catalog: Catalog, spec: RunSpec) -> bool:
    """Whether `prepare_data` has nothing to prepare that it would keep for the next run."""
    from harness.data import prepared_cache
    from harness.data.user_files.dataset import dataset_of

    folder = prepared_cache.entry(spec, dataset_of(spec, catalog), catalog)
    return folder is None or folder.is_dir()


def _prepared(task: Task, dataset: Dataset, options: Any, spec: RunSpec) -> PreparedData:
    from harness.data.prepared import check, dataset_digest
    from harness.data.raw import check_raw

    raw = _loaded(dataset, spec)
    check_raw(raw, task.objective)
    data = task.prepare(raw, options)
    check(data)
    info = msgspec.structs.replace(data.info, details={**raw.details, **data.info.details})
    return dataclasses.replace(data, info=info, digest=dataset_digest(data))


def _loaded(dataset: Dataset, spec: RunSpec) -> RawData:
    """What the dataset loads. Where that fails because its installed files changed, the `harness.DataError` says so."""
    try:
        return dataset.load(msgspec.convert(spec.dataset_options, dataset.Options))
    except Exception as error:
        from harness.data.cache import install_dir
        from harness.data.install import verify

        damage = verify(dataset) if dataset.files and install_dir(dataset).is_dir() else []
        if not damage:
            raise
        name = dataset.name
        raise DataError(
            f"dataset {name!r} is damaged; run: harness data clear {name} && harness data fetch {name}: {damage[0]}"
        ) from error


def session_request(
    catalog: Catalog, spec: RunSpec, data: PreparedData, device: DeviceInfo
) -> tuple[Model, Any, SessionRequest]:
    """The model's family, its configuration, and what the backend's session is asked for."""
    model, _ = catalog.model(spec.model)
    config = msgspec.convert(spec.model_options, model.Config)
    network = catalog.network(model.name, spec.backend)
    if network is None:
        raise PluginError(f"no plugin brings model {model.name!r} to backend {spec.backend!r}")
    request = SessionRequest(
        build=plugins.resolve(network.build),
        config=config,
        info=data.info,
        parameters=tuple(model.parameters(config, data.info)),
        recipe=spec.recipe,
        device=device.name,
        precision=spec.precision,
        compile=spec.compile,
        deterministic=spec.deterministic,
        seed=spec.seed,
        threads=spec.threads,
    )
    return model, config, request


def ready(session: Session, backend: Backend, weights: Mapping[str, Any], data: PreparedData) -> None:
    """Make a session that can predict: with these weights, or where its backend fits at once, fitted."""
    session.set_weights(weights)
    if not backend.trains_by_steps:
        session.fetch(session.train_step(Batch(dict(data.train.inputs), data.train.targets), 0.0))


def starting_weights(model: Model, request: SessionRequest, spec: RunSpec) -> tuple[dict[str, Any], dict[str, str]]:
    """The canonical arrays that training starts from, drawn or from the spec's checkpoint, and notes on the latter.

    Raises `harness.DataError` where the checkpoint does not fit, or is not the one that was planned with.
    """
    from harness.execute.weights import initial_weights
    from harness.plan import checkpoint as pretrained

    initial = initial_weights(request.parameters, spec.seed)
    if spec.pretrained is None:
        return initial, {}
    return pretrained.weights(spec.pretrained, model, request.parameters, initial)


def explain(error: Exception, backend: Backend | None) -> tuple[FailureKind, str]:
    """What kind of failure an exception is, and its first line in its own words; the log has the traceback."""
    kind: FailureKind = "error"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, UnsupportedError):
        kind = "unsupported"
    elif isinstance(error, BadResultError):
        kind = "bad_result"
    elif isinstance(error, MemoryError) or (backend is not None and backend.is_out_of_memory(error)):
        kind = "oom"
    elif not isinstance(error, HarnessError):
        text = f"{type(error).__name__}: {error}"
    return kind, text.splitlines()[0][:500]

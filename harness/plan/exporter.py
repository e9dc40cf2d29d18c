"""Selection of the backend that exports a model, and use of previously exported models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CombinationError, UsageError
from harness.plugins.catalog import Catalog
from harness.plugins.environments import missing
from harness.records import ExportedModel
from harness.records.export import Export, is_export, read_export
from harness.records.store import StoredRun


@dataclass(frozen=True)
class ExportedRun:
    """A run and the folder that contains the model exported by ``harness export``."""

    run: StoredRun
    folder: Path
    export: Export


def accepting_exports(find: Callable[[str], StoredRun]) -> Callable[[str], StoredRun | ExportedRun]:
    """Return a function that looks up runs and that also accepts the folder of an exported model.

    `find` is the function that looks up a run by its id or path.
    """

    def found(text: str) -> StoredRun | ExportedRun:
        folder = Path(text)
        if not is_export(folder):
            return find(text)
        export = read_export(folder)
        return ExportedRun(find(export.run), folder.absolute(), export)

    return found


def exporter_for(format_: str, family: str, preferred: str, catalog: Catalog, env: str = "") -> str:
    """Return the backend that exports a model in a format.

    The backend that trained the model is preferred. Otherwise, the first backend that can export the model is returned.
    Raises `harness.CombinationError` if no backend can export the model. The error message lists the reasons.
    """
    reasons = []
    for name in dict.fromkeys(([preferred] if preferred else []) + list(catalog.backends)):
        backend = catalog.backend(name)
        if format_ not in backend.exports or catalog.network(family, name) is None:
            continue
        reason = missing({**backend.requires, **backend.exports[format_]}, env)
        if reason is None:
            return name
        reasons.append(f"\n  {name}: {reason}")
    others = {name for backend in catalog.backends.values() for name in backend.value.exports} | {"safetensors"}
    known = f"; no plugin exports it in this format; known formats: {', '.join(sorted(others))}{catalog.hint}"
    raise CombinationError(f"model {family!r} cannot be exported as {format_}{''.join(reasons) or known}")


def exported_model(
    source: StoredRun | ExportedRun, backend: str, family: str, catalog: Catalog, env: str
) -> ExportedModel | None:
    """Return the exported model that a backend executes, or None if the backend builds a network.

    Raises `harness.CombinationError` if no backend can export the model or if the model was exported in another format.
    Raises `harness.UsageError` if the model was exported from other weights.
    """
    format_ = catalog.backend(backend).executes
    if isinstance(source, ExportedRun):
        made, record = source.export, source.run.record
        if made.weights_digest != record.provenance.final_weights_digest:
            raise UsageError(
                f"{source.folder} was exported from weights other than those of run {record.run_id!r}; export the "
                "run again"
            )
        if format_ != made.format:
            use = f"executes models exported as {format_}" if format_ else "does not execute exported models"
            raise CombinationError(
                f"{source.folder} contains a model exported as {made.format}, but backend {backend!r} {use}; pass "
                f"--weights {made.run}"
            )
        return ExportedModel(exporter=made.exporter, digest=made.digest, path=str(source.folder))
    if not format_:
        return None
    return ExportedModel(exporter=exporter_for(format_, family, source.record.spec.backend, catalog, env))

"""Export of trained models in child processes.

Measurements of the backend that executes the model therefore do not include the export and the conversion.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.cache import cache_dir
from harness.errors import HarnessError, RecordError, UnsupportedError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import load_plugins, opened_session, prepare, prepare_data, starting_weights
from harness.execute.variables import child_environment
from harness.measure.environment import versions
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.plugins.environments import interpreter
from harness.plugins.requirements import DISTRIBUTION
from harness.records import IGNORED, DataInfo, Failure, PluginRef, RunSpec
from harness.records.export import DESCRIPTION, Export, files_digest, read_export
from harness.records.scratch import temporary
from harness.records.store import ARRAYS, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.interfaces import Session

MODEL, SAFETENSORS, CONVERSION = "model", "model.safetensors", "conversion.json"
SAME_LABELS, CLOSE = 0.999, 1e-4
"""Requirements for an export in fp32: minimum fraction of test examples for which the exported model and the run
predict the same label, and maximum relative difference between the outputs of the exported model and of the run."""
ODD_BATCHES = (1, 3)
"""Batch sizes, in addition to the batch size of the run, for which an exported model must produce the same outputs."""
CALIBRATION = 256
"""Maximum number of training examples passed to `harness.Backend.convert`."""
FULL_BYTES = 2**20
"""Free space below which a disk is considered full, in bytes."""
TIMEOUT_S = 3600.0
"""Maximum duration of an export or a conversion during a run, in seconds."""
MEANING = {
    "classification": "logits [B, classes]; the softmax gives the probabilities of the labels",
    "token_classification": "logits [B, L, classes] for each position",
    "regression": "standardized targets [B, targets]; multiply by target_scale and add target_mean",
}


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that exports a model."""

    spec: RunSpec
    """Spec with the trained weights and the backend that exports the model."""
    plugins: tuple[PluginRef, ...]
    format: str


class ConversionJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that converts an exported model."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    exported: str
    """Folder of the exported model."""


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a converted model."""

    files: list[str]
    digest: str
    """SHA-256 (hex) of the names and contents of the files."""
    notes: dict[str, str]


def exporter_spec(spec: RunSpec, exporter: str) -> RunSpec:
    """Return the spec of the run in which `exporter` exports the model of `spec`."""
    return msgspec.structs.replace(
        spec,
        backend=exporter,
        device="cpu",
        devices=1,
        precision="fp32",
        compile=False,
        deterministic=False,
        weights=spec.weights and msgspec.structs.replace(spec.weights, exported=None),
    )


def export_in_child(
    spec: RunSpec, catalog: Catalog, format_: str, directory: Path, *, timeout_s: float, option: str = ""
) -> Export:
    """Export a model in a child process to the folder `MODEL` in `directory`.

    The outputs of the exported model for the test split are written to `ARRAYS`.

    The outputs of the export are compared with those of the framework that exported the model. Raises
    `harness.HarnessError` if the export fails or the outputs differ.
    """
    assert spec.weights is not None
    made = call_in_child(
        write,
        ExportJob(spec=spec, plugins=catalog.refs_for(spec), format=format_),
        timeout_s=timeout_s,
        environment=child_environment(spec),
        interpreter=interpreter(spec.env),
        directory=directory,
        limit_option=option,
    )
    if isinstance(made, Failure):
        # The errors of frameworks do not always name this reason.
        full = "the disk is full; " if shutil.disk_usage(directory).free < FULL_BYTES else ""
        kind = UnsupportedError if made.kind == "unsupported" else HarnessError
        raise kind(
            f"run {spec.weights.run!r} could not be exported as {format_} by {spec.backend}: {full}{made.message}"
        )
    return made


def write(job: ExportJob, context: ChildContext) -> Export:
    """Write the files of the exported model and compute the model's outputs for the test split, in a child process."""
    import numpy as np

    from harness.data.batches import inference_batches
    from harness.measure.distance import relative
    from harness.measure.inference import predict
    from harness.records.arrays import write_arrays

    prepared = prepare(job.spec, job.plugins)
    weights, _ = starting_weights(prepared)
    folder = context.directory / MODEL
    folder.mkdir()
    test, size, info = prepared.data.test, job.spec.recipe.batch_size, prepared.data.info
    with opened_session(prepared, weights) as session:
        expected = predict(session, test, size, info.outputs)
        example, _ = next(iter(inference_batches(test, max(2, min(size, 4)))))
        if job.format == "safetensors":
            function = _as_safetensors(session, weights, folder)
        else:
            function = session.export(job.format, folder, example)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        parts = [function(inputs)[:valid] for inputs, valid in inference_batches(test, size)]
        outputs = np.concatenate(parts, dtype=np.float32)
        for count in ODD_BATCHES:
            inputs, valid = next(iter(inference_batches(test, count)))
            if not (error := relative(function(inputs)[:valid], outputs[:valid])) <= CLOSE:
                raise HarnessError(
                    f"the outputs for a batch of {count} differ from those of larger batches by {error:.1e}"
                )
    error, same, problems = differences(outputs, expected, test.targets, info, CLOSE)
    if problems:
        raise HarnessError(f"the exported model differs from the model of the framework: {problems}")
    write_arrays(context.directory / ARRAYS, {"outputs": outputs})
    assert job.spec.weights is not None
    needed = prepared.backend.exports.get(job.format, {})
    return Export(
        run=job.spec.weights.run,
        format=job.format,
        files=files,
        digest=files_digest(folder, files),
        weights_digest=job.spec.weights.digest,
        exporter=job.spec.backend,
        packages=versions((*prepared.backend.packages, *needed)),
        inputs=msgspec.to_builtins(info.inputs),
        outputs=MEANING[info.objective],
        examples=len(outputs),
        same_labels=same,
        error=error,
    )


def differences(
    outputs: NDArray[Any], expected: NDArray[Any], targets: NDArray[Any], info: DataInfo, allowed: float
) -> tuple[float, int | None, str]:
    """Return the relative difference between the outputs, and the number of examples with the same label (None for
    regression).

    Also return a description of the differences that are too large. The description is empty if all differences are
    small enough.
    """
    from harness.measure.distance import relative

    error, same_labels = relative(outputs, expected), None
    problems = [f"the outputs differ by {error:.1e} (allowed {allowed:.0e})"] if not error <= allowed else []
    if info.objective != "regression":
        same = outputs.argmax(axis=-1) == expected.argmax(axis=-1)
        if same.ndim == 2:
            same = (same | (targets == IGNORED)).all(axis=1)
        same_labels = int(same.sum())
        if same_labels < SAME_LABELS * len(same):
            problems.append(f"only {same_labels} of {len(same)} test examples have the same label (99.9% are required)")
    return error, same_labels, "; ".join(problems)


def _as_safetensors(
    session: Session, weights: Mapping[str, NDArray[Any]], folder: Path
) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    from harness.execute.weights import load, save

    save(folder / SAFETENSORS, weights)
    session.set_weights(load(folder / SAFETENSORS))
    return lambda inputs: session.fetch(session.predict(inputs))


# ---- models that a run executes ---------------------------------------------------------------------------


def executable_model(spec: RunSpec, catalog: Catalog) -> tuple[Path, dict[str, str]]:
    """Return the folder of the exported model that a spec executes, together with notes that describe the model.

    The model is exported and, if the backend requires it, converted to the precision of the spec. If the result is
    already in the cache, it is reused. Raises `harness.HarnessError` if the model cannot be exported or converted.
    """
    assert spec.weights is not None
    assert spec.weights.exported is not None
    used = spec.weights.exported
    folder = Path(used.path) if used.path else _cached_export(spec, used.exporter, catalog)
    made = read_export(folder)
    if used.digest and made.digest != used.digest:
        raise RecordError(f"{folder}: the exported model has changed; pass it to --weights again")
    notes = {
        "exported_by": f"{made.exporter} ({', '.join(f'{name} {number}' for name, number in made.packages.items())})",
        "exported_digest": made.digest,
        "export_error": f"{made.error:.1e}",
    }
    if spec.precision not in catalog.backend(spec.backend).converts:
        return folder, notes
    folder, converted = _cached_conversion(spec, folder, made, catalog)
    return folder, notes | converted.notes | {"converted_digest": converted.digest}


def _cached_export(spec: RunSpec, exporter: str, catalog: Catalog) -> Path:
    format_ = catalog.backend(spec.backend).executes
    chosen = exporter_spec(spec, exporter)
    assert chosen.weights is not None
    backend = catalog.backend(exporter)
    packages = versions((*backend.packages, *backend.exports.get(format_, {})))
    content = [chosen.weights.digest, chosen.weights.dataset_digest, chosen.model, chosen.model_options]
    folder = _entry(catalog, chosen, [format_, content, packages])

    def make(directory: Path) -> None:
        made = export_in_child(chosen, catalog, format_, directory, timeout_s=TIMEOUT_S)
        write_json(directory / MODEL / DESCRIPTION, made)
        (directory / ARRAYS).rename(directory / MODEL / ARRAYS)

    return _made(folder, read_export, make)


def _cached_conversion(spec: RunSpec, exported: Path, made: Export, catalog: Catalog) -> tuple[Path, Conversion]:
    backend = catalog.backend(spec.backend)
    assert spec.weights is not None
    content = [made.digest, spec.precision, spec.weights.dataset_digest, versions(backend.packages)]
    folder = _entry(catalog, spec, content)

    def make(directory: Path) -> None:
        converted = call_in_child(
            convert,
            ConversionJob(spec=spec, plugins=catalog.refs_for(spec), exported=str(exported)),
            timeout_s=TIMEOUT_S,
            environment=child_environment(spec),
            interpreter=interpreter(spec.env),
            directory=directory,
        )
        if isinstance(converted, Failure):
            kind = UnsupportedError if converted.kind == "unsupported" else HarnessError
            raise kind(converted.message)
        write_json(directory / MODEL / CONVERSION, converted)

    folder = _made(folder, _read_conversion, make)
    return folder, _read_conversion(folder)


def convert(job: ConversionJob, context: ChildContext) -> Conversion:
    """Convert an exported model to the precision of the spec, in a child process."""
    catalog = load_plugins(job.plugins)
    backend = catalog.backend(job.spec.backend)
    os.environ.update(backend.environment)
    train = prepare_data(catalog, job.spec).train
    folder = context.directory / MODEL
    folder.mkdir()
    examples = train.take(slice_of(len(train))).inputs
    notes = backend.convert(Path(job.exported), folder, job.spec.precision, examples)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return Conversion(files=files, digest=files_digest(folder, files), notes=notes)


def slice_of(count: int) -> NDArray[Any]:
    """Return the positions of at most `CALIBRATION` examples that are evenly spaced over a split."""
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, CALIBRATION)).astype(int))


def _read_conversion(folder: Path) -> Conversion:
    from harness.records.reading import load_named

    found = load_named(folder / CONVERSION, Conversion)
    if files_digest(folder, found.files) != found.digest:
        raise RecordError(f"{folder}: the files of the converted model have changed")
    return found


def _entry(catalog: Catalog, spec: RunSpec, content: list[Any]) -> Path:
    """Return the folder in the cache for an exported or converted model.

    The name is a digest of all inputs that determine the model, including the code of the plugins.
    """
    code = [with_digest(ref).code_digest for ref in catalog.refs_for(spec)]
    values = [spec.backend, content, code, version(DISTRIBUTION)]
    digest = hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()
    return cache_dir() / "exports" / digest[:32]


def _made(folder: Path, check: Callable[[Path], object], make: Callable[[Path], None]) -> Path:
    """Return a folder in the cache. If the folder is missing or damaged, `make` writes its content to `MODEL` in a
    temporary folder."""
    if folder.is_dir():
        try:
            check(folder)
        except RecordError:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return folder
    with temporary(folder.parent) as scratch:
        make(scratch)
        try:
            (scratch / MODEL).rename(folder)
        except OSError:  # another process has finished the same model
            check(folder)
    return folder

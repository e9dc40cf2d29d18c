"""`DatasetInfo`: all that is known of a dataset before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.data.cache import State, install_dir, state
from harness.interfaces import Dataset, RawInput
from harness.interfaces.remote import mirror_path, total_bytes

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    url: str
    alternates: tuple[str, ...]
    download_bytes: int | None
    verified_by: Literal["sha256", "members", "nothing"]
    mirror_path: str


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What ``harness data list --format json`` and ``info --format json`` print of a dataset."""

    name: str
    tasks: tuple[str, ...]
    """Tasks that can use it."""
    kind: str
    objective: str
    summary: str
    state: State
    """``embedded`` comes with an installed package; ``cached`` was fetched and verified."""
    download_bytes: int | None
    """None where a publisher's file has no known size."""
    license: str
    homepage: str
    citation: str
    notes: str
    examples: dict[str, int]
    """Of each split; this, ``inputs`` and ``label_names`` are of the options' defaults, and empty if not declared."""
    splits: tuple[int, ...]
    """Numbers of the published splits, where there are several."""
    inputs: dict[str, RawInput]
    label_names: tuple[str, ...]
    metric: str
    """What the literature on it reports first."""
    options: dict[str, Any]
    """Options with their defaults; ``--set dataset.OPTION=VALUE`` changes them."""
    path: str | None
    """Folder of the installed files; None where there is none yet."""
    files: tuple[FileInfo, ...]


def describe(catalog: Catalog, dataset: Dataset) -> DatasetInfo:
    """`dataset`, with the tasks in `catalog` that can use it. Nothing is fetched or loaded."""
    suited = [
        name
        for name, provided in catalog.tasks.items()
        if (provided.value.kind, provided.value.objective) == (dataset.kind, dataset.objective)
    ]
    found = state(dataset)
    return DatasetInfo(
        name=dataset.name,
        tasks=tuple(sorted(suited)),
        kind=dataset.kind,
        objective=dataset.objective,
        summary=dataset.summary,
        state=found,
        download_bytes=total_bytes(dataset.files),
        license=dataset.license,
        homepage=dataset.homepage,
        citation=dataset.citation,
        notes=dataset.notes,
        examples=dict(dataset.examples),
        splits=tuple(dataset.splits),
        inputs=dict(dataset.inputs),
        label_names=tuple(dataset.label_names),
        metric=dataset.metric,
        options=_defaults(dataset),
        path=str(install_dir(dataset)) if found == "cached" else None,
        files=tuple(
            FileInfo(
                name=file.local_name,
                url=file.url,
                alternates=file.alternates,
                download_bytes=file.bytes,
                verified_by="sha256" if file.sha256 else "members" if file.members else "nothing",
                mirror_path=mirror_path(file.url),
            )
            for file in dataset.files
        ),
    )


def _defaults(dataset: Dataset) -> dict[str, Any]:
    fields = msgspec.structs.fields(dataset.Options)
    values = {field.encode_name: field.default for field in fields if field.default is not msgspec.NODEFAULT}
    plain: dict[str, Any] = msgspec.to_builtins(values)
    return plain

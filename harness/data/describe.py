"""`DatasetInfo`, a description of a dataset that is available without downloading the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.data.cache import State, install_dir, state
from harness.interfaces import Dataset, RawInput
from harness.interfaces.remote import mirror_path, total_bytes

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is downloaded for a dataset."""

    name: str
    url: str
    alternates: tuple[str, ...]
    download_bytes: int | None
    verified_by: Literal["sha256", "members", "nothing"]
    mirror_path: str


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a dataset, as printed by ``harness data list --format json`` and ``info --format json``."""

    name: str
    tasks: tuple[str, ...]
    """Sorted names of the tasks that can use the dataset."""
    kind: str
    objective: str
    summary: str
    state: State
    """``embedded`` (part of an installed package), ``cached`` (fetched and verified) or ``to fetch``."""
    download_bytes: int | None
    """Total size of the files, or None if the size of any file is unknown."""
    license: str
    homepage: str
    citation: str
    notes: str
    examples: dict[str, int]
    """Number of examples in each split, or an empty mapping if the dataset does not declare these numbers. Like
    `inputs` and `label_names`, the example counts apply to the dataset's default options.
    """
    splits: tuple[int, ...]
    """Numbers that identify the published splits, or an empty tuple if only one split was published."""
    inputs: dict[str, RawInput]
    label_names: tuple[str, ...]
    metric: str
    """Main metric used for the dataset in the literature."""
    options: dict[str, Any]
    """Default value of each option. Set another value with ``--set dataset.OPTION=VALUE``."""
    path: str | None
    """Folder of the installed files, or None if they are not installed."""
    files: tuple[FileInfo, ...]


def describe(catalog: Catalog, dataset: Dataset) -> DatasetInfo:
    """Return the description of `dataset`, including the tasks in `catalog` that can use it. No files are
    downloaded.
    """
    suitable = [
        name
        for name, provided in catalog.tasks.items()
        if (provided.value.kind, provided.value.objective) == (dataset.kind, dataset.objective)
    ]
    current = state(dataset)
    return DatasetInfo(
        name=dataset.name,
        tasks=tuple(sorted(suitable)),
        kind=dataset.kind,
        objective=dataset.objective,
        summary=dataset.summary,
        state=current,
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
        path=str(install_dir(dataset)) if current == "cached" else None,
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

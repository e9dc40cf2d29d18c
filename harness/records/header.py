"""The parts of a record that determine whether a planned run must be executed. Results are not included.

Decoding only these fields takes a fraction of the time needed to decode an entire record.
`harness.records.store.Store.headers` returns the fields only for records that have been validated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.records.record import Environment, Failure, ParityMark
from harness.records.spec import PluginRef


class HeaderRecipe(Struct, frozen=True):
    """The batch size."""

    batch_size: int


class HeaderSpec(Struct, frozen=True):
    """The fields of a `RunSpec` that are needed to compare a stored run with this machine and with a requested run."""

    backend: str
    recipe: HeaderRecipe
    device: str
    env: str = ""


class HeaderProvenance(Struct, frozen=True):
    """The plugins of a run, and the digest of its weights."""

    plugins: list[PluginRef] = []
    final_weights_digest: str | None = None


class HeaderSuccess(Struct, frozen=True, tag="success"):
    """A successful outcome, without the results."""


class HeaderTrial(Struct, frozen=True, tag="trial"):
    """The outcome of a trial, without the scores."""


class Header(Struct, frozen=True):
    """A `RunRecord` without its results. The fields have the same meaning as in `RunRecord`."""

    run_id: str
    key: str
    started_at: str
    spec: HeaderSpec
    environment: Environment
    provenance: HeaderProvenance
    outcome: HeaderSuccess | Failure | HeaderTrial
    request_key: str = ""
    batch_size_reduced_from: int | None = None
    quality_only: bool = False
    parity: list[ParityMark] = []


@dataclass(frozen=True)
class StoredHeader:
    """The header of a run in a results directory."""

    path: Path
    """Directory of the run."""
    record: Header


DECODER = msgspec.json.Decoder(Header)

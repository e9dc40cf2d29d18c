"""The frozen records that travel between the rooms of the harness. Units are in the names.

Everything here that reaches disk is a `msgspec.Struct`: it is validated on read, and its JSON Schema
is published in ``docs/record.schema.json``. Arrays travel in the plain dataclasses of `harness.protocols`.
"""

from harness.types.events import (
    EpochEnded,
    Event,
    PhaseStarted,
    Progress,
)
from harness.types.record import (
    SCHEMA_VERSION,
    ClassScore,
    DeviceMemory,
    Environment,
    Failure,
    FailureKind,
    Gpu,
    Latency,
    Memory,
    ModelInfo,
    Outcome,
    ParityMark,
    Provenance,
    RunRecord,
    Scores,
    SliceScore,
    Speed,
    Success,
)
from harness.types.spec import (
    DataInfo,
    DataSource,
    InputSpec,
    Objective,
    PluginRef,
    Precision,
    Pretrained,
    Protocol,
    Recipe,
    RunSpec,
)

__all__ = [
    "SCHEMA_VERSION",
    "ClassScore",
    "DataInfo",
    "DataSource",
    "DeviceMemory",
    "Environment",
    "EpochEnded",
    "Event",
    "Failure",
    "FailureKind",
    "Gpu",
    "InputSpec",
    "Latency",
    "Memory",
    "ModelInfo",
    "Objective",
    "Outcome",
    "ParityMark",
    "PhaseStarted",
    "PluginRef",
    "Precision",
    "Pretrained",
    "Progress",
    "Protocol",
    "Provenance",
    "Recipe",
    "RunRecord",
    "RunSpec",
    "Scores",
    "SliceScore",
    "Speed",
    "Success",
]

"""Train and serve the same model on the same data under different frameworks; report quality and cost together.

Plugin authors and scripts use the names in ``__all__``; nothing else is public. Names are loaded on first use, so
``import harness`` costs nothing that is not asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.table import Table
    from harness.api import Results, load, run
    from harness.data.holdout import holdout
    from harness.data.install import installed
    from harness.errors import (
        BadResultError,
        CombinationError,
        DataError,
        HarnessError,
        PluginError,
        RecordError,
        UnknownNameError,
        UnsupportedError,
        UsageError,
    )
    from harness.interfaces import (
        Backend,
        Batch,
        Binding,
        Dataset,
        DeviceInfo,
        Metric,
        Model,
        Network,
        NetworkRef,
        NoOptions,
        Parameter,
        PreparedData,
        RawData,
        RawInput,
        Reporter,
        RooflineKernels,
        SeededSplit,
        Session,
        SessionRequest,
        Split,
        Task,
    )
    from harness.interfaces.remote import RemoteFile
    from harness.plugins.hookspecs import API_VERSION, hookimpl
    from harness.records import (
        IGNORED,
        DataInfo,
        DeviceMemory,
        EpochEnded,
        Failure,
        InputSpec,
        Protocol,
        Recipe,
        RunRecord,
        RunSpec,
        Success,
    )
    from harness.records.store import StoredRun
    from harness.report.report import Report

_HOME = {
    "harness.api": ("Results", "load", "run"),
    "harness.data.holdout": ("holdout",),
    "harness.data.install": ("installed",),
    "harness.interfaces.remote": ("RemoteFile",),
    "harness.errors": (
        "BadResultError",
        "CombinationError",
        "DataError",
        "HarnessError",
        "PluginError",
        "RecordError",
        "UnknownNameError",
        "UnsupportedError",
        "UsageError",
    ),
    "harness.plugins.hookspecs": ("API_VERSION", "hookimpl"),
    "harness.interfaces": (
        "Backend",
        "Batch",
        "Binding",
        "Dataset",
        "DeviceInfo",
        "Metric",
        "Model",
        "Network",
        "NetworkRef",
        "NoOptions",
        "Parameter",
        "RooflineKernels",
        "PreparedData",
        "RawData",
        "RawInput",
        "Reporter",
        "SeededSplit",
        "Session",
        "SessionRequest",
        "Split",
        "Task",
    ),
    "harness.report.report": ("Report",),
    "harness.analysis.table": ("Table",),
    "harness.records.store": ("StoredRun",),
    "harness.records": (
        "IGNORED",
        "DataInfo",
        "DeviceMemory",
        "EpochEnded",
        "Failure",
        "InputSpec",
        "Protocol",
        "Recipe",
        "RunRecord",
        "RunSpec",
        "Success",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "API_VERSION",
    "IGNORED",
    "Backend",
    "BadResultError",
    "Batch",
    "Binding",
    "CombinationError",
    "DataError",
    "DataInfo",
    "Dataset",
    "DeviceInfo",
    "DeviceMemory",
    "EpochEnded",
    "Failure",
    "HarnessError",
    "InputSpec",
    "Metric",
    "Model",
    "Network",
    "NetworkRef",
    "NoOptions",
    "Parameter",
    "PluginError",
    "PreparedData",
    "Protocol",
    "RawData",
    "RawInput",
    "Recipe",
    "RecordError",
    "RemoteFile",
    "Report",
    "Reporter",
    "Results",
    "RooflineKernels",
    "RunRecord",
    "RunSpec",
    "SeededSplit",
    "Session",
    "SessionRequest",
    "Split",
    "StoredRun",
    "Success",
    "Table",
    "Task",
    "UnknownNameError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "holdout",
    "hookimpl",
    "installed",
    "load",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("harness")
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

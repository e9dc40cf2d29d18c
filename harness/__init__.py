"""Train and serve the same model on the same data under different frameworks; report quality and cost together.

Plugin authors and scripts use the names in ``__all__``; nothing else is public. Names are loaded on first use, so
``import harness`` costs nothing that is not asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import Results, load, run
    from harness.data.holdout import holdout
    from harness.data.install import installed
    from harness.data.remote import RemoteFile
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
    from harness.hookspecs import API_VERSION, hookimpl
    from harness.protocols import (
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
        PeakKernels,
        PreparedData,
        RawData,
        RawInput,
        Reporter,
        Session,
        SessionRequest,
        Split,
        Task,
    )
    from harness.report.report import Report
    from harness.report.table import Table
    from harness.store import StoredRun
    from harness.types import (
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

_HOME = {
    "harness.api": ("Results", "load", "run"),
    "harness.data.holdout": ("holdout",),
    "harness.data.install": ("installed",),
    "harness.data.remote": ("RemoteFile",),
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
    "harness.hookspecs": ("API_VERSION", "hookimpl"),
    "harness.protocols": (
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
        "PeakKernels",
        "PreparedData",
        "RawData",
        "RawInput",
        "Reporter",
        "Session",
        "SessionRequest",
        "Split",
        "Task",
    ),
    "harness.report.report": ("Report",),
    "harness.report.table": ("Table",),
    "harness.store": ("StoredRun",),
    "harness.types": (
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
    "PeakKernels",
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
    "RunRecord",
    "RunSpec",
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

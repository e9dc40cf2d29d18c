"""What a plugin implements, a file for each kind, and the arrays between them.

A plugin module imports in milliseconds: numpy, scikit-learn and the frameworks are imported inside functions.
"""

from harness.protocols.backend import (
    Backend,
    DeviceInfo,
    PeakKernels,
    Session,
    SessionRequest,
)
from harness.protocols.data import (
    Batch,
    Dataset,
    NoOptions,
    PreparedData,
    RawData,
    RawInput,
    Split,
    Task,
)
from harness.protocols.model import (
    Binding,
    BuildNetwork,
    Model,
    Network,
    NetworkRef,
    Parameter,
)
from harness.protocols.output import (
    Metric,
    Reporter,
)

__all__ = [
    "Backend",
    "Batch",
    "Binding",
    "BuildNetwork",
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
]

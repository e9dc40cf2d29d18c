"""Classes that plugins implement, with one module for each kind of plugin, and the arrays that plugins exchange.

Importing a plugin's module must take only a few milliseconds. Numpy, scikit-learn and the frameworks must therefore be
imported inside functions.
"""

from harness.interfaces.backend import (
    Backend,
    DeviceGroup,
    DeviceInfo,
    ExportedSession,
    InferenceSession,
    RooflineKernels,
    Session,
    SessionRequest,
)
from harness.interfaces.batch import Batch
from harness.interfaces.data import (
    Dataset,
    NoOptions,
    PreparedData,
    RawData,
    RawInput,
    SeededSplit,
    Split,
    Task,
)
from harness.interfaces.execution import (
    Attempt,
    Coordinator,
    Executor,
    Machine,
    PlannedRun,
    SubmissionState,
    TrialPruned,
)
from harness.interfaces.model import (
    Binding,
    BuildNetwork,
    Model,
    Network,
    NetworkRef,
    Parameter,
)
from harness.interfaces.output import (
    Metric,
    Reporter,
    Tracker,
)

__all__ = [
    "Attempt",
    "Backend",
    "Batch",
    "Binding",
    "BuildNetwork",
    "Coordinator",
    "Dataset",
    "DeviceGroup",
    "DeviceInfo",
    "Executor",
    "ExportedSession",
    "InferenceSession",
    "Machine",
    "Metric",
    "Model",
    "Network",
    "NetworkRef",
    "NoOptions",
    "Parameter",
    "PlannedRun",
    "PreparedData",
    "RawData",
    "RawInput",
    "Reporter",
    "RooflineKernels",
    "SeededSplit",
    "Session",
    "SessionRequest",
    "Split",
    "SubmissionState",
    "Task",
    "Tracker",
    "TrialPruned",
]

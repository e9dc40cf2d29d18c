"""What one backend's evidence consists of: a report and, in a file next to the child's log, arrays."""

from __future__ import annotations

from msgspec import Struct

from harness.records import DataInfo, Precision, RunSpec

ARRAYS = "evidence.npz"
CHECKPOINTS = (1, 5, 10, 20, 50)
"""Steps of the training after which the test batch is predicted."""


class ParityReport(Struct, frozen=True, kw_only=True):
    """What is known about the evidence besides its arrays."""

    spec: RunSpec
    """With the device that was chosen."""
    device_name: str
    packages: dict[str, str]
    notes: dict[str, str]
    data: DataInfo
    dataset_digest: str
    weights_digest: str
    cpu_precisions: tuple[Precision, ...]
    parameters: dict[str, tuple[int, ...]]
    """Canonical name -> shape, as the session gives its weights back."""
    changed_on_the_way: dict[str, float]
    """Parameter that did not come back as it was set -> largest difference."""
    statistics: tuple[str, ...]
    """Names of the running statistics."""
    decayed: tuple[str, ...]
    """Names of the parameters that weight decay applies to."""

"""The report on one backend's computation. Its arrays are saved separately, in an archive next to the child's log."""

from __future__ import annotations

from msgspec import Struct

from harness.records import DataInfo, Precision, RunSpec

ARRAYS = "evidence.npz"
CHECKPOINTS = (1, 5, 10, 20, 50)
"""Numbers of training steps after which the test batch is predicted."""


class ParityReport(Struct, frozen=True, kw_only=True):
    """One backend's evidence, except for its arrays."""

    spec: RunSpec
    """Run specification, with the device that was selected."""
    device_name: str
    packages: dict[str, str]
    notes: dict[str, str]
    data: DataInfo
    dataset_digest: str
    weights_digest: str
    cpu_precisions: tuple[Precision, ...]
    parameters: dict[str, tuple[int, ...]]
    """Shapes of the weights returned by the session, by canonical name."""
    changed_on_the_way: dict[str, float]
    """Largest difference for each parameter whose returned values differ from the values that were set."""
    statistics: tuple[str, ...]
    """Names of the running statistics."""
    decayed: tuple[str, ...]
    """Names of the parameters to which weight decay applies."""

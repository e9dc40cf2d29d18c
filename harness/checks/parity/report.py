"""The report that, with an archive of arrays next to the child's log, forms one backend's evidence."""

from __future__ import annotations

from msgspec import Struct

from harness.records import DataInfo, Precision, RunSpec

ARRAYS = "evidence.npz"
CHECKPOINTS = (1, 5, 10, 20, 50)
"""Training steps after which the test batch is predicted."""


class ParityReport(Struct, frozen=True, kw_only=True):
    """One backend's evidence, apart from its arrays."""

    spec: RunSpec
    """The spec, with the device that was chosen."""
    device_name: str
    packages: dict[str, str]
    notes: dict[str, str]
    data: DataInfo
    dataset_digest: str
    weights_digest: str
    cpu_precisions: tuple[Precision, ...]
    parameters: dict[str, tuple[int, ...]]
    """Shapes of the weights that the session returns, by canonical name."""
    changed_on_the_way: dict[str, float]
    """Largest difference of each parameter whose returned values differ from those that were set."""
    statistics: tuple[str, ...]
    """Names of the running statistics."""
    decayed: tuple[str, ...]
    """Names of the parameters to which weight decay applies."""

"""Results of one backend in a parity check. The arrays are stored in an archive next to the child's log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.records import DataInfo, Precision, RunSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ARRAYS = "evidence.npz"
CHECKPOINTS = (1, 5, 10, 20, 50)
"""Numbers of training steps after which predictions for the test batch are computed."""
STEPS = 50
"""Default number of training steps in a check. Verdicts of checks with fewer steps are not saved."""
LONG_STEPS = 300
"""Number of steps in the longer training run on small batches."""


class ParityReport(Struct, frozen=True, kw_only=True):
    """Results of one backend in a parity check, without the arrays."""

    spec: RunSpec
    """Run specification, with the selected device."""
    device_name: str
    packages: dict[str, str]
    notes: dict[str, str]
    data: DataInfo
    dataset_digest: str
    weights_digest: str
    batches_digest: str
    """Digest of the training batches, after augmentation."""
    cpu_precisions: tuple[Precision, ...]
    parameters: dict[str, tuple[int, ...]]
    """Shapes of the weights returned by the session, by canonical name."""
    changed_on_the_way: dict[str, float]
    """Largest difference between the values that were set and the values that the session returned, by parameter.
    Parameters without a difference are omitted."""
    statistics: tuple[str, ...]
    """Names of the running statistics."""
    decayed: tuple[str, ...]
    """Names of the parameters to which weight decay applies."""


@dataclass(frozen=True)
class Evidence:
    """Report and arrays of one backend, as returned by `harness.checks.parity.evidence.gather`."""

    report: ParityReport
    arrays: Mapping[str, Array]

    @property
    def backend(self) -> str:
        """Name of the backend, including its named environment."""
        return self.report.spec.backend_in_env

    def roundings(self) -> list[Evidence]:
        """Return the results that were computed from weights with perturbed last bits."""
        parts: dict[str, dict[str, Array]] = {}
        for key in self.arrays:
            if key.startswith("rounding/"):
                _, number, name = key.split("/", 2)
                parts.setdefault(number, {})[name] = self.arrays[key]
        return [Evidence(self.report, arrays) for arrays in parts.values()]

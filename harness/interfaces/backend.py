"""What a backend plugin implements: `Backend`, which opens a `Session` of one model on one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from harness.interfaces.data import Batch
from harness.interfaces.model import BuildNetwork, Parameter
from harness.records import DataInfo, DeviceMemory, Precision, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class DeviceInfo(Struct, frozen=True, kw_only=True):
    """A device that a backend can compute on: ``cpu``, ``cuda:0`` ..., and what it can do there."""

    name: str
    description: str
    precisions: tuple[Precision, ...]


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """Everything a backend needs to open a session."""

    build: BuildNetwork
    config: Any
    info: DataInfo
    parameters: Sequence[Parameter]
    recipe: Recipe
    device: str
    """As `Backend.devices` names it; never ``auto``."""
    precision: Precision
    compile: bool
    seed: int
    threads: int
    deterministic: bool = False
    """Use only kernels that give the same bits every time."""


@dataclass(frozen=True)
class RooflineKernels:
    """What a device is at its best in: the core calls these in windows and keeps the time.

    Calls may return before the device has finished; `synchronize` waits.
    """

    matrix: Callable[[int], Callable[[], Any]]
    """n -> what multiplies two square matrices [n, n] of the precision once."""
    copy: Callable[[int], Callable[[], Any]]
    """Bytes -> what copies an array of that size into another once."""
    synchronize: Callable[[], None]


class Session(ABC):
    """One model on one device. A backend only computes: the core owns the loops, the clock, the batches.

    Calls may return before the device has finished; `synchronize` and `fetch` wait. At precision ``fp64`` every
    array that is said to be float32 here is float64, except those that come in.
    """

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Copy canonical float32 arrays in. The optimizer's state starts afresh."""

    @abstractmethod
    def get_weights(self) -> dict[str, Array]:
        """Canonical float32 arrays, running statistics included."""

    @abstractmethod
    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        """Forward in training mode, backward, one optimizer step. Returns a handle of the batch's mean loss."""

    @abstractmethod
    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """What `train_step` would hand to its optimizer, without the step and before clipping: the batch's mean loss,
        and its gradient by every trainable parameter, float32 under the canonical name and in the canonical shape.

        Asked for by the parity check only. Running statistics may move, as in any forward pass in training mode.
        """

    @abstractmethod
    def predict(self, inputs: Mapping[str, Array]) -> Any:
        """Forward in evaluation mode. Returns a handle of the outputs, float32 ``[B, outputs]`` once fetched:
        logits, or standardized regression targets; of token classification logits ``[B, L, outputs]``."""

    def inference(self) -> AbstractContextManager[Any]:
        """The core's loops of inference lie inside it: what a framework would else switch on at each `predict`.
        `predict` also works outside of it."""
        return nullcontext()

    @abstractmethod
    def fetch(self, handle: Any) -> Array:
        """Wait for a handle and copy it to the host as float32."""

    @abstractmethod
    def synchronize(self) -> None:
        """Return once the device has finished all work that was submitted."""

    def device_memory(self) -> DeviceMemory | None:
        """Peaks since the session was opened; None where the device is the host."""
        return None

    def notes(self) -> dict[str, str]:
        """What was set: thread counts, TF32 flags, compile mode; stored in the record."""
        return {}

    def close(self) -> None:  # noqa: B027  # optional
        """Free the device's memory. The session is not used again."""


class Backend(ABC):
    """A framework. Importing its module and making its instance must not import the framework."""

    name: ClassVar[str]
    summary: ClassVar[str]
    requires: ClassVar[Mapping[str, str]]
    """Importable module -> command that installs it; asked with ``find_spec``, before anything is imported."""
    packages: ClassVar[Sequence[str]]
    """Distributions whose versions go into the record."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables set in the worker before anything is imported (quieter logs, deterministic kernels)."""
    trains_by_steps: ClassVar[bool] = True
    """False: each `Session.train_step` fits anew on its batch, which is the whole training split; it knows no rate and
    no gradients, and its models may have no canonical parameters."""
    default_models: ClassVar[Sequence[str]] = ()
    """Variants, best first, to run where the backend was named, no model was, and the task's default has no network for
    it: the first that suits the task."""

    @abstractmethod
    def devices(self) -> Sequence[DeviceInfo]:
        """Devices that work here, best first. Imports the framework: called in a worker or a probe only."""

    @abstractmethod
    def open(self, request: SessionRequest) -> Session:
        """Build the network on the device. Raises `harness.UnsupportedError` for what the device cannot do:
        never falls back to another device, precision or mode."""

    def allocated_bytes(self, device: str, size_bytes: int) -> int | None:
        """Allocate so many bytes on `device` and let them go; by how much the framework's peak rose, as
        `Session.device_memory` has it. None where it does not tell. For ``harness selftest``, in a child."""
        return None

    def roofline_kernels(self, device: str, precision: Precision, threads: int) -> RooflineKernels | None:
        """For ``harness doctor --roofline``, in a child of its own; None where the backend has none."""
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the framework's exception says that memory ran out."""
        return isinstance(error, MemoryError)

"""The interface of backends: `Backend`, which opens a `Session` for one model on one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from harness.errors import UnsupportedError
from harness.interfaces.batch import Batch
from harness.interfaces.model import BuildNetwork, Parameter
from harness.records import DataInfo, DeviceMemory, Precision, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]


class DeviceInfo(Struct, frozen=True, kw_only=True):
    """A device that a backend can use, and the precisions that the backend supports on it."""

    name: str
    """Name of the device: ``cpu``, or a device type and an index, such as ``cuda:0``. The index of a CUDA device is its
    number in the CUDA driver, so ``cuda:N`` refers to the same GPU in every backend."""
    description: str
    """Human-readable description, such as the product name of a GPU."""
    precisions: tuple[Precision, ...]
    """Supported precisions, which always include ``fp32``."""
    uuid: str = ""
    """UUID of an NVIDIA GPU or MIG device, with or without its prefix. The string is empty if the framework does not
    report the UUID. The core uses the UUID to find this GPU's counters in NVML.
    """


class DeviceGroup(Struct, frozen=True, kw_only=True):
    """Group of processes that train one model on several devices of this machine, and the rank of this process.

    Every process of the group opens a session with the same weights and calls the same methods in the same order. Each
    process receives its part of every training batch. `Batch.weight` is the weight of this part.
    """

    rank: int
    """Rank of this process; ranks start at 0. The process with rank 0 measures the run and computes the predictions."""
    addresses: tuple[str, ...]
    """Addresses of the processes, in rank order, such as ``127.0.0.1:41234``. Each process may accept connections from
    the other processes on its address."""

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.addresses)


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """A request to open a session, with the model, the training settings and the device."""

    build: BuildNetwork
    """Function that builds the network, called as ``build(config, info, dropout)``."""
    config: Any
    """Instance of the model's `Model.Config`."""
    info: DataInfo
    """Description of the prepared data, such as the input shapes, the objective and the number of outputs."""
    parameters: Sequence[Parameter]
    """Canonical parameters of the model. `Parameter.trainable` is False for parameters that are selected by
    `Recipe.frozen`."""
    recipe: Recipe
    """Training settings, such as optimizer, regularization and dropout."""
    device: str
    """Name of the device, as in `Backend.devices`. It is never ``auto``."""
    precision: Precision
    """Precision of the computation."""
    compile: bool
    """True to compile the network with the backend's compiler."""
    seed: int
    """Seed for all random numbers that the session draws, for example for dropout masks."""
    threads: int
    """Number of CPU threads that the session may use."""
    frozen: frozenset[str] = frozenset()
    """Names of the parameters that `Recipe.frozen` selects."""
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    """Learning rate factors of the trainable parameters, by parameter name, as determined by `Recipe.layer_decay`.
    Empty if all factors are 1."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class, as determined by `Recipe.class_weights`. The loss of an example or position is multiplied
    by the weight of its class. None if the classes are not weighted."""
    deterministic: bool = False
    """True to use only kernels whose results are bitwise reproducible."""
    exported: Path | None = None
    """Folder of the exported model that the backend executes (`Backend.executes`), or None if the backend builds
    networks. `build` raises an exception if `exported` is specified."""
    group: DeviceGroup | None = None
    """Group of processes that train the model together, or None if this process trains the model alone. Only backends
    with `Backend.data_parallel` receive a group. In a group, each process has a different `seed`."""


@dataclass(frozen=True)
class RooflineKernels:
    """Kernels for measuring a device's peak compute and bandwidth.

    The core calls the kernels repeatedly and measures the elapsed time. A call may return before the device has
    finished.

    A GPU that reaches its power limit computes faster with constants than with random numbers. The inputs of both
    kernels are therefore drawn from a standard normal distribution. Every backend uses the same inputs:
    ``standard_normal(shape, numpy.float32)`` of ``numpy.random.default_rng(0)`` is called once for each matrix, and the
    result is converted to the dtype of the precision. A kernel must not use its output as its next input, because the
    numbers would overflow or vanish.
    """

    matrix: Callable[[int], Callable[[], Any]]
    """Function that takes ``n`` and returns a kernel. The kernel multiplies two ``[n, n]`` matrices in the requested
    precision."""
    copy: Callable[[int], Callable[[], Any]]
    """Function that takes a size in bytes and returns a kernel that copies an array of that size to another array."""
    synchronize: Callable[[], None]
    """Function that waits until the device has finished all submitted work."""


class Session(ABC):
    """A model on a device.

    A session performs only the computations. The core runs the training loop, measures the time and provides the
    batches. Methods may return before the device has finished. `synchronize` and `fetch` wait for the device.

    Notes
    -----
    If the precision is ``fp64``, arrays documented as float32 are float64 instead, except for the arrays in a batch.
    """

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Copy the weights into the network and reset the optimizer's state.

        Parameters
        ----------
        weights : mapping of str to ndarray
            Float32 arrays with canonical shapes, including running statistics, keyed by canonical name.
        """

    @abstractmethod
    def get_weights(self) -> dict[str, Array]:
        """Return a copy of the current weights.

        Returns
        -------
        dict of str to ndarray
            Float32 arrays with canonical shapes, including running statistics, keyed by canonical name.
        """

    @abstractmethod
    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        """Run one training step.

        A training step consists of a forward pass in training mode, a backward pass and an optimizer step.

        Parameters
        ----------
        batch : Batch
            The examples for this step. In a session with a `DeviceGroup`, these are the examples of this process. The
            gradients of the weighted loss (`Batch.weight`) are summed over all processes. Gradient clipping and the
            optimizer step use this sum.
        learning_rate : float
            Learning rate for this step. The given learning rate replaces the learning rate in the recipe, because the
            core computes the schedule.

        Returns
        -------
        Any
            A handle to the mean loss of the batch. `fetch` converts the handle to a number. With a `DeviceGroup`, the
            handle refers to the loss of the whole batch, which is the same in all processes.
        """

    @abstractmethod
    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """Compute the loss and gradients of a batch as `train_step` does, without updating the weights.

        Only the parity check calls this method. As in any forward pass in training mode, running statistics may change,
        and each call draws new dropout masks.

        Parameters
        ----------
        batch : Batch
            The examples for this step.

        Returns
        -------
        loss : float
            Mean loss of the batch.
        gradients : dict of str to ndarray
            Float32 gradients of the loss with respect to all trainable parameters, before clipping. The gradients are
            keyed by canonical name and have canonical shapes.
        """

    def update_average(self, weight: float) -> None:
        """Update the moving average of all canonical weights: ``average += weight * (weights - average)``.

        The core calls this method after each training step if `Recipe.ema_decay` is set. The weight of the first update
        after `set_weights` is 1.

        Parameters
        ----------
        weight : float
            Contribution of the current weights to the new average, from 0 to 1.
        """
        raise UnsupportedError(f"{type(self).__name__} does not support recipe.ema_decay; remove this option")

    def averaged(self) -> AbstractContextManager[Any]:
        """Return a context manager in which `predict` and `get_weights` use the moving average instead of the weights.

        When the context exits, training continues with the original weights and optimizer state. No training steps are
        executed within this context.
        """
        raise UnsupportedError(f"{type(self).__name__} does not support recipe.ema_decay; remove this option")

    @abstractmethod
    def predict(self, inputs: Mapping[str, Array]) -> Any:
        """Run a forward pass in evaluation mode.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Arrays ``[B, ...]``, keyed by input name. The method must not modify the arrays. A run fails if its data
            were modified.

        Returns
        -------
        Any
            A handle to the outputs. `fetch` converts the handle to a float32 array. The array contains logits ``[B,
            outputs]``, standardized regression targets ``[B, outputs]``, or, for token classification, logits ``[B, L,
            outputs]``.
        """

    def inference(self) -> AbstractContextManager[Any]:
        """Return a context manager that the core enters during its inference loops.

        A backend can use the context manager to switch its framework to inference mode once instead of in every call to
        `predict`. `predict` must also work outside the context manager. The default context manager does nothing.
        """
        return nullcontext()

    @abstractmethod
    def fetch(self, handle: Any) -> Array:
        """Wait for a result and copy it to the host.

        Parameters
        ----------
        handle : Any
            Handle returned by `train_step` or `predict`.

        Returns
        -------
        ndarray
            The result as float32.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all submitted work."""

    def state(self) -> dict[str, Array]:
        """Return a copy of the state that determines the session's subsequent training steps.

        The state includes the weights, running statistics, the optimizer's moments and step counts, the states of
        random number generators, the loss scale, and the moving average of the weights. The core calls this method
        between training steps, outside of `averaged`. Backends with `Backend.checkpoints` implement this method.

        Returns
        -------
        dict of str to ndarray
            Arrays of any shape with boolean, integer or floating-point dtypes, keyed by name. Values are stored
            exactly.

        Raises
        ------
        harness.UnsupportedError
            If the session does not implement checkpoints.
        """
        raise UnsupportedError(f"{type(self).__name__} does not support checkpoints; remove --checkpoint-every")

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Restore a state that `state` returned.

        Subsequent training steps produce the same results as if training had continued after the call to `state`. On
        the CPU, the results of the subsequent training steps must be bitwise identical. The core calls `set_weights`
        before this method. The state comes from a session that was opened for an equal `SessionRequest`, usually in an
        earlier process.

        Parameters
        ----------
        state : mapping of str to ndarray
            Arrays returned by `state`. The arrays must not be modified, and must be copied if they are kept.

        Raises
        ------
        harness.PluginError
            If names or shapes do not match those of this session.
        harness.UnsupportedError
            If the session does not implement checkpoints.
        """
        raise UnsupportedError(f"{type(self).__name__} does not support checkpoints; remove --checkpoint-every")

    def device_memory(self) -> DeviceMemory | None:
        """Return the peak memory usage of the device since the session was opened.

        Returns
        -------
        DeviceMemory or None
            Peak memory in bytes. The value is None if the device is the host or the framework does not report peak
            memory.
        """
        return None

    def notes(self) -> dict[str, str]:
        """Return the settings that the session actually uses, such as thread counts, TF32 flags and the compile mode.

        The settings are stored in the run's record. In a run, this method is called once, before the first batch, so it
        cannot report anything that is known only later.
        """
        return {}

    def export(self, format_: str, folder: Path, inputs: Mapping[str, Array]) -> Callable[[Mapping[str, Array]], Array]:
        """Write the network and its current weights to files for deployment. The network is written in evaluation mode.

        Parameters
        ----------
        format_ : str
            One of `Backend.exports`.
        folder : Path
            Empty folder for the files.
        inputs : mapping of str to ndarray
            Arrays of example inputs ``[B, ...]``, keyed by input name. The exported model must accept batches of any
            size.

        Returns
        -------
        callable
            Function that reads the exported files and computes the outputs for inputs ``[B, ...]``. The outputs are
            float32 and have the layout of `predict`. ``harness export`` calls the function to compare the export with
            the run.

        Raises
        ------
        harness.UnsupportedError
            If the format is not supported or requires a package that is not installed.
        """
        raise UnsupportedError(f"this backend cannot export models as {format_}")

    def attributions(
        self,
        method: str,
        inputs: Mapping[str, Array],
        baselines: Mapping[str, Array],
        outputs: Array,
        steps: int,
    ) -> tuple[dict[str, Array], Array]:
        """Attribute an output of the network to its inputs. The network is in evaluation mode.

        Parameters
        ----------
        method : str
            One of `Backend.attributions`.
        inputs : mapping of str to ndarray
            Inputs ``[B, ...]``, keyed by input name.
        baselines : mapping of str to ndarray
            Reference inputs, with the names, shapes and dtypes of `inputs`. Inputs that are equal to their baseline are
            not attributed.
        outputs : ndarray of int
            Output to attribute for each example: an index ``[B]`` or, for token classification, a position and a class
            ``[B, 2]``.
        steps : int
            Number of steps of the numerical integration, for methods that integrate gradients.

        Returns
        -------
        values : dict of str to ndarray
            Float32 attributions of the inputs that differ from their baseline, keyed by input name. Each array has the
            shape of its input.
        deltas : ndarray
            Convergence delta of each example, float32 ``[B]``: the sum of the attributions minus the difference between
            the output for the inputs and the output for the baselines.

        Raises
        ------
        harness.UnsupportedError
            If the method is not supported for the network.
        """
        raise UnsupportedError(f"{type(self).__name__} does not compute attributions; use another backend")

    def flops_bounds(self, inputs: Mapping[str, Array]) -> tuple[float, float]:
        """Count the floating-point operations of the network's forward pass. The network is in evaluation mode.

        ``harness plugin check`` compares the result with `Model.flops_per_sample`.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Inputs ``[B, ...]``, keyed by input name.

        Returns
        -------
        low : float
            Number of operations in matrix products and convolutions for the batch. A multiply-add counts as two
            operations.
        high : float
            Upper bound on the total number of operations for the batch.

        Raises
        ------
        harness.UnsupportedError
            If the operations cannot be counted.
        """
        raise UnsupportedError(f"{type(self).__name__} does not count the operations of networks")

    def close(self) -> None:  # noqa: B027  # optional
        """Free the session's memory on the device. The session is not used afterwards."""


class InferenceSession(Session):
    """A session of a backend that cannot train (`Backend.trains` is False).

    Subclasses implement the remaining abstract methods. `set_weights` is called once before the first prediction, and
    may be called again with different weights.
    """

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        """Raise `harness.UnsupportedError`."""
        raise UnsupportedError("this backend only computes predictions and cannot train")

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """Raise `harness.UnsupportedError`."""
        raise UnsupportedError("this backend only computes predictions and has no gradients")


class ExportedSession(InferenceSession):
    """Session of a backend that executes exported models (`Backend.executes`).

    Subclasses load the model from `SessionRequest.exported`, and implement `predict`, `fetch` and `synchronize`. The
    exported model contains the weights.
    """

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Raise `harness.UnsupportedError`."""
        raise UnsupportedError("the weights are part of the exported model and cannot be changed")

    def get_weights(self) -> dict[str, Array]:
        """Return an empty dictionary."""
        return {}


class Backend(ABC):
    """A framework that trains and runs networks.

    Importing the backend's module and instantiating the class must not import the framework.
    """

    name: ClassVar[str]
    """Name of the backend, as passed to ``--backend``."""
    summary: ClassVar[str]
    """One-line description."""
    requires: ClassVar[Mapping[str, str]]
    """Mapping from each required module to the requirement or command that installs it, such as ``my-package[extra]``
    or ``pip install numpy``. The modules are looked up without being imported."""
    packages: ClassVar[Sequence[str]]
    """Names of the distributions whose versions are stored in the record."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Environment variables to set in the worker process before any import, for example to silence log messages."""
    trains_by_steps: ClassVar[bool] = True
    """False if each call to `Session.train_step` fits the model from scratch. If False, each batch contains the whole
    training split and the validation split (`Batch.validation`), and learning rates and gradients are not used. Models
    need not have canonical parameters."""
    trains: ClassVar[bool] = True
    """False if the backend only computes predictions. Such a backend is used with ``harness run --weights`` and
    ``harness predict``. If False, sessions are instances of `InferenceSession`."""
    exports: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Mapping from each format that `Session.export` writes, such as ``onnx``, to the modules that the format requires
    in addition to `requires`. Each module is mapped to the requirement or command that installs it."""
    attributions: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Mapping from each method that `Session.attributions` supports, such as ``integrated-gradients``, to the modules
    that the method requires in addition to `requires`. The modules are specified in the format of `exports`."""
    executes: ClassVar[str] = ""
    """Format of the exported models that the backend executes, such as ``onnx``. The string is empty if the backend
    builds networks. A backend that executes exported models cannot train (`trains` is False), does not require
    networks, and opens sessions that are instances of `ExportedSession`. The core exports the trained model with
    another backend, in a separate process."""
    converts: ClassVar[Collection[str]] = ()
    """Precisions for which the exported model must be converted by `convert`. For other precisions, sessions execute
    the exported model without conversion."""
    data_parallel: ClassVar[bool] = False
    """True if the backend can train a model on several devices (`SessionRequest.group`). If False, runs on several
    devices are rejected before they start."""
    checkpoints: ClassVar[bool] = False
    """True if the sessions implement `Session.state` and `Session.set_state`. If False, ``--checkpoint-every`` is
    rejected during planning."""
    example_weights: ClassVar[bool] = False
    """True if the sessions multiply the losses by `Batch.example_weights`. If False, runs on data with weights are
    rejected."""
    default_models: ClassVar[Sequence[str]] = ()
    """Preferred model variants for this backend, best first. If the user does not select a model, the task's default
    model is used. If no network implements the default model for this backend, the first compatible variant in this
    list is used."""

    recipe_options: ClassVar[Collection[str]] = ()
    """Elements of `Recipe.SESSION_OPTIONS` that the sessions implement. Other elements are rejected during planning."""

    @abstractmethod
    def devices(self) -> Sequence[DeviceInfo]:
        """Return the devices that are available on this machine, best first.

        This method may import the framework. The method is called only in worker and probe processes.
        """

    @abstractmethod
    def open(self, request: SessionRequest) -> Session:
        """Build a network on a device.

        Parameters
        ----------
        request : SessionRequest
            Network, device and settings.

        Returns
        -------
        Session
            The open session. The network's weights are undefined until `Session.set_weights` is called.

        Raises
        ------
        harness.UnsupportedError
            If the device, the precision or a setting is not supported. The backend must not silently fall back to
            different settings.
        """

    def convert(
        self, exported: Path, folder: Path, precision: Precision, examples: Mapping[str, Array]
    ) -> dict[str, str]:
        """Convert an exported model to one of the precisions in `converts`.

        The core calls this method in a separate process and caches the result. The conversion is therefore not part of
        the measurement.

        Parameters
        ----------
        exported : Path
            Folder of the exported model.
        folder : Path
            Empty folder for the converted model. Sessions receive this folder as `SessionRequest.exported`.
        precision : str
            Precision of the converted model.
        examples : mapping of str to ndarray
            Inputs of training examples for calibration, ``[N, ...]``, keyed by input name.

        Returns
        -------
        dict of str to str
            Description of the conversion. The description is added to the notes in the record.

        Raises
        ------
        harness.UnsupportedError
            If the model cannot be converted.
        """
        raise UnsupportedError(f"this backend cannot convert models to {precision}")

    def allocated_bytes(self, device: str, size_bytes: int) -> int | None:
        """Allocate memory, free it, and return the increase in the framework's peak memory usage.

        ``harness selftest`` calls this method in a child process to check `Session.device_memory`.

        Parameters
        ----------
        device : str
            Name of the device.
        size_bytes : int
            Number of bytes to allocate.

        Returns
        -------
        int or None
            Increase in peak memory in bytes, or None if the framework does not report its peak memory.
        """
        return None

    def roofline_kernels(self, device: str, precision: Precision, threads: int) -> RooflineKernels | None:
        """Return kernels for measuring a device's peak performance.

        ``harness doctor --roofline`` calls this method in a child process.

        Parameters
        ----------
        device : str
            Name of the device.
        precision : str
            Precision of the matrix multiplication.
        threads : int
            Number of CPU threads to use.

        Returns
        -------
        RooflineKernels or None
            The kernels, or None if the backend does not provide them.
        """
        return None

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether an exception indicates that the framework ran out of memory."""
        return isinstance(error, MemoryError)

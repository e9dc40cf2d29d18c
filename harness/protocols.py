"""What a plugin implements: `Task`, `Dataset`, `Model`, `Backend` and `Session`, and the arrays between them.

A plugin module imports in milliseconds: numpy, scikit-learn and the frameworks are imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from msgspec import Struct

from harness.types import DataInfo, DeviceMemory, Objective, Precision, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


# ---- data -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples in a fixed order.

    ``inputs``: name -> array ``[N, ...]``. Raw data may hold object arrays (``text``: str; ``waveform``: one
    float32 array ``[samples]`` in [-1, 1] an example); prepared data holds plain numeric arrays only.
    ``targets``: int64 ``[N]`` class numbers, or float ``[N, T]``.
    ``groups``: name -> array ``[N]``, such as the speaker of each example.
    """

    inputs: Mapping[str, Array]
    targets: Array
    groups: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Array) -> Split:
        """The examples at `index` (int array), in that order."""
        return Split(
            inputs={name: array[index] for name, array in self.inputs.items()},
            targets=self.targets[index],
            groups={name: array[index] for name, array in self.groups.items()},
        )


@dataclass(frozen=True, kw_only=True)
class RawData:
    """What a dataset loads: three splits as published (or made once, with a fixed seed), nothing fitted."""

    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...] = ()
    details: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Facts that the task needs, such as ``sample_rate_hz``; ``target_unit`` for regression."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What a task makes of it: numeric arrays, ready for every backend. Fitted on the training split only."""

    train: Split
    validation: Split
    test: Split
    info: DataInfo


class Batch(NamedTuple):
    """`inputs`: name -> C-contiguous array ``[B, ...]``; `targets`: int64 ``[B]`` or float32 ``[B, T]``."""

    inputs: dict[str, Array]
    targets: Array


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """For plugins without options of their own."""


class Dataset:
    """A named dataset. Subclass, set the class attributes, implement `load`."""

    name: ClassVar[str]
    kind: ClassVar[str]
    """Kind of the raw input that tasks ask for: ``text``, ``image``, ``audio``, ``table``."""
    objective: ClassVar[Objective]
    summary: ClassVar[str]
    licence: ClassVar[str]
    Options: ClassVar[type[Struct]] = NoOptions
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Model variant or family -> changes to the recipe, found on this dataset's validation split."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Importable module -> command that installs it; asked before anything runs."""

    def load(self, options: Any) -> RawData:
        """Read the splits. `options` is an instance of `Options`. Raises `harness.DataError`."""
        raise NotImplementedError


class Task:
    """What is done with data of one kind: preprocessing, objective, metrics, defaults."""

    name: ClassVar[str]
    kind: ClassVar[str]
    """Kind of raw input it takes; equal to its datasets' ``kind``."""
    produces: ClassVar[str]
    """Kind of prepared input (`DataInfo.kind`); models name it in ``accepts``."""
    objective: ClassVar[Objective]
    summary: ClassVar[str]
    default_dataset: ClassVar[str]
    default_model: ClassVar[str]
    metric: ClassVar[str]
    """The primary metric."""
    metrics: ClassVar[Sequence[str]]
    """Every metric reported, the primary one among them."""
    recipe: ClassVar[Recipe] = Recipe()
    Options: ClassVar[type[Struct]] = NoOptions

    def prepare(self, data: RawData, options: Any) -> PreparedData:
        """Turn raw data into numeric arrays. Deterministic; fitted steps see ``data.train`` only."""
        raise NotImplementedError


# ---- models -----------------------------------------------------------------------------------------------


class Parameter(Struct, frozen=True, kw_only=True):
    """One canonical array of a model: its name in the Hugging Face checkpoint of the architecture where there
    is one, its shape in PyTorch's layout (dense ``[out, in]``, convolution ``[out, in / groups, *kernel]``),
    and how it starts. `init` names a distribution with one number; see `harness.weights`."""

    name: str
    shape: tuple[int, ...]
    init: str = "zeros"
    """``zeros``, ``ones``, ``constant``, ``normal`` (std), ``truncated_normal`` (std, cut at two of them),
    ``uniform`` (bound: drawn from [-bound, bound]) or ``orthogonal`` (gain)."""
    scale: float = 1.0
    trainable: bool = True
    """False for running statistics: loaded, saved and averaged, never optimised."""
    decay: bool = False
    """Whether weight decay applies (by habit: matrices and kernels yes, biases and norms no)."""


class Model:
    """An architecture as data: its sizes, its parameters and its cost. Networks implement it, one a backend."""

    name: ClassVar[str]
    """The family, such as ``bert``."""
    summary: ClassVar[str]
    accepts: ClassVar[Sequence[str]]
    """Kinds of prepared input (`DataInfo.kind`)."""
    objectives: ClassVar[Sequence[Objective]]
    Config: ClassVar[type[Struct]]
    """Frozen record of the sizes; its fields are what ``--set model.<field>=`` may change."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Variant name (``bert-tiny``) -> values of `Config`. The first one is the family's default."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Variant (or the family) -> changes to the task's recipe."""
    has_dropout: ClassVar[bool] = False

    def parameters(self, config: Any, info: DataInfo) -> Sequence[Parameter]:
        """Every canonical array of the model for data like `info`, running statistics included."""
        raise NotImplementedError

    def flops_per_sample(self, config: Any, info: DataInfo) -> float:
        """FLOPs of one example's forward pass; a multiply-add counts two. The docstring gives the formula."""
        raise NotImplementedError

    def solve(self, config: Any, info: DataInfo, train: Split) -> dict[str, Array] | None:
        """The optimum as canonical arrays, where the model has a closed form; None otherwise."""
        return None


# ---- networks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NetworkRef:
    """A model built for a backend, named lazily: `build` is ``"module:callable"``.

    The callable has the signature ``build(config, info, dropout) -> Network`` and may import the framework.
    """

    model: str
    backend: str
    build: str


@dataclass(frozen=True)
class Binding:
    """Where one canonical array lives: ``own = canonical.transpose(axes).reshape(shape)``.

    `variable` is the framework's parameter, buffer or variable. `axes` empty means no transposition; `shape`
    empty means no reshaping.
    """

    variable: Any
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def to_own(self, canonical: Array) -> Array:
        own = canonical.transpose(self.axes) if self.axes else canonical
        return own.reshape(self.shape) if self.shape else own

    def to_canonical(self, own: Array, shape: tuple[int, ...]) -> Array:
        """Inverse of `to_own`; `shape` is the canonical one."""
        if not self.axes:
            return own.reshape(shape)
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return own.reshape([shape[axis] for axis in self.axes]).transpose(inverse)


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a network's callable returns: the framework's own module, and a binding for every canonical name.

    How the module is called is the backend's convention, in its package's docstring. Trainable variables of the
    module that no binding names are an error, and so is a canonical name without a binding.
    """

    module: Any
    bindings: Mapping[str, Binding]


BuildNetwork = Callable[[Any, DataInfo, float], Network]


# ---- backends ---------------------------------------------------------------------------------------------


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


class Session:
    """One model on one device. A backend only computes: the core owns the loops, the clock, the batches.

    Calls may return before the device has finished; `synchronize` and `fetch` wait. At precision ``fp64`` every
    array that is said to be float32 here is float64, except those that come in.
    """

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Copy canonical float32 arrays in. The optimizer's state starts afresh."""
        raise NotImplementedError

    def get_weights(self) -> dict[str, Array]:
        """Canonical float32 arrays, running statistics included."""
        raise NotImplementedError

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        """Forward in training mode, backward, one optimizer step. Returns a handle of the batch's mean loss."""
        raise NotImplementedError

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """What `train_step` would hand to its optimizer, without the step and before clipping: the batch's mean loss,
        and its gradient by every trainable parameter, float32 under the canonical name and in the canonical shape.

        Asked for by the parity check only. Running statistics may move, as in any forward pass in training mode.
        """
        raise NotImplementedError

    def predict(self, inputs: Mapping[str, Array]) -> Any:
        """Forward in evaluation mode. Returns a handle of the outputs, float32 ``[B, outputs]`` once fetched:
        logits, or standardised regression targets."""
        raise NotImplementedError

    def fetch(self, handle: Any) -> Array:
        """Wait for a handle and copy it to the host as float32."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Return once the device has finished all work that was submitted."""
        raise NotImplementedError

    def device_memory(self) -> DeviceMemory | None:
        """Peaks since the session was opened; None where the device is the host."""
        return None

    def notes(self) -> dict[str, str]:
        """What was set: thread counts, TF32 flags, compile mode; stored in the record."""
        return {}

    def close(self) -> None:
        """Free the device's memory. The session is not used again."""


class Backend:
    """A framework. Importing its module and making its instance must not import the framework."""

    name: ClassVar[str]
    summary: ClassVar[str]
    requires: ClassVar[Mapping[str, str]]
    """Importable module -> command that installs it; asked with ``find_spec``, before anything is imported."""
    packages: ClassVar[Sequence[str]]
    """Distributions whose versions go into the record."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables set in the worker before anything is imported (quieter logs, deterministic kernels)."""

    def devices(self) -> Sequence[DeviceInfo]:
        """Devices that work here, best first. Imports the framework: called in a worker or a probe only."""
        raise NotImplementedError

    def open(self, request: SessionRequest) -> Session:
        """Build the network on the device. Raises `harness.UnsupportedError` for what the device cannot do:
        never falls back to another device, precision or mode."""
        raise NotImplementedError

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the framework's exception says that memory ran out."""
        return isinstance(error, MemoryError)


# ---- metrics and reports ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number computed from predictions.

    `function` is ``"module:callable"`` with the signature ``f(targets, outputs, info) -> float | None``: targets
    int64 ``[N]`` and outputs logits float32 ``[N, C]``; or both float64 ``[N, T]`` in the target's own unit.
    """

    name: str
    objective: Objective
    function: str
    higher_is_better: bool
    summary: str
    unit: str = ""
    """Empty for a share between 0 and 1; ``target`` for the target's own unit."""


@dataclass(frozen=True, kw_only=True)
class Reporter:
    """A format of ``harness report``. `render` is ``"module:callable"``: ``f(table) -> str``."""

    name: str
    render: str
    summary: str

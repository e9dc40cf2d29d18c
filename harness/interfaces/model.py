"""What a model plugin implements: `Model`, an architecture as data, and a `Network` of it for each backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from msgspec import Struct
from typing_extensions import TypeVar

from harness.interfaces.data import Split
from harness.records import DataInfo, Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ConfigT = TypeVar("ConfigT", bound=Struct, default=Any)


class Parameter(Struct, frozen=True, kw_only=True):
    """One canonical array of a model: its name in the Hugging Face checkpoint of the architecture where there
    is one, its shape in PyTorch's layout (dense ``[out, in]``, convolution ``[out, in / groups, *kernel]``),
    and how it starts. `init` names a distribution with one number; see `harness.execute.weights`."""

    name: str
    shape: tuple[int, ...]
    init: str = "zeros"
    """``zeros``, ``ones``, ``constant``, ``normal`` (std), ``truncated_normal`` (std, cut at two of them),
    ``uniform`` (bound: drawn from [-bound, bound]) or ``orthogonal`` (gain)."""
    scale: float = 1.0
    trainable: bool = True
    """False for running statistics: loaded, saved and averaged, never optimized."""
    decay: bool = False
    """Whether weight decay applies (by habit: matrices and kernels yes, biases and norms no)."""


class Model(ABC, Generic[ConfigT]):
    """An architecture as data: its sizes, its parameters and its cost. Networks implement it, one for each backend.

    ``Model[MyConfig]`` types the argument of the methods, where `Config` is ``MyConfig``.
    """

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
    fine_tuning: ClassVar[Mapping[str, Any]] = {}
    """Changes to the recipe for a training that starts from a checkpoint."""
    checkpoint_type: ClassVar[str] = ""
    """``model_type`` in the ``config.json`` of its checkpoints; empty: `name`."""
    base: ClassVar[str] = ""
    """Prefix of the encoder's parameters, which checkpoints of the bare encoder leave out: ``bert.``."""
    head: ClassVar[Sequence[str]] = ()
    """Prefixes of the parameters that a checkpoint of another task lacks, or has in another shape."""
    legacy_names: ClassVar[Mapping[str, str]] = {}
    """Endings of parameter names in older checkpoints -> canonical endings."""
    checkpoint_requires: ClassVar[Mapping[str, Any]] = {}
    """Fields of a checkpoint's ``config.json`` that are no field of `Config` -> the one value that is implemented."""

    @abstractmethod
    def parameters(self, config: ConfigT, info: DataInfo) -> Sequence[Parameter]:
        """Return every canonical array of the model for data like `info`, including running statistics."""

    @abstractmethod
    def flops_per_sample(self, config: ConfigT, info: DataInfo) -> float:
        """Return the FLOPs of one example's forward pass, two for a multiply-add. The docstring gives the formula."""

    def solve(self, config: ConfigT, info: DataInfo, train: Split) -> dict[str, Array] | None:
        """The optimum as canonical arrays, where the model has a closed form; None otherwise."""
        return None


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

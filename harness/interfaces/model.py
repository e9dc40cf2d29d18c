"""The interface for models: `Model` describes an architecture, and `Network` is its implementation in a framework."""

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
    """Name, shape and initializer of one canonical array of a model."""

    name: str
    """Name of the array. If there are Hugging Face checkpoints for the architecture, the array has the same name in
    these checkpoints."""
    shape: tuple[int, ...]
    """Shape in PyTorch's layout: ``[out, in]`` for a dense layer, ``[out, in / groups, *kernel]`` for a convolution."""
    init: str = "zeros"
    """Initializer: ``zeros``, ``ones``, ``constant``, ``normal``, ``truncated_normal``, ``uniform`` or
    ``orthogonal``."""
    scale: float = 1.0
    """Argument of the initializer. The argument is the value of ``constant``, the standard deviation of ``normal``, the
    standard deviation of ``truncated_normal`` before truncation at two standard deviations, the bound b of ``uniform``
    on [-b, b], or the gain of ``orthogonal``."""
    trainable: bool = True
    """If False, the array is loaded and saved but not optimized. Running statistics are usually not optimized."""
    decay: bool = False
    """True to apply weight decay. By convention, weight decay is applied to matrices and kernels, but not to biases and
    normalization parameters."""


class Model(ABC, Generic[ConfigT]):
    """A framework-independent description of an architecture, with its sizes, parameters and computational cost.

    A `Network` implements the model for a backend. The type parameter of ``Model[MyConfig]`` is the type of the
    configuration that the methods receive. Set `Config` to the same class.
    """

    name: ClassVar[str]
    """Name of the model family, such as ``bert``."""
    summary: ClassVar[str]
    """One-line description."""
    accepts: ClassVar[Sequence[str]]
    """Supported kinds of prepared input (`DataInfo.kind`)."""
    objectives: ClassVar[Sequence[Objective]]
    """Supported objectives."""
    Config: ClassVar[type[Struct]]
    """Frozen struct with the model's dimensions. Users set the fields with ``--set model.<field>=``."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Values of the fields of `Config`, keyed by variant name, such as ``bert-tiny``. The first variant is the
    default."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes to the task's training recipe, keyed by variant or family name."""
    has_dropout: ClassVar[bool] = False
    """True if the model has dropout layers. If False, networks are built with a dropout rate of 0. In this case,
    neither the model nor a dataset may declare a recipe for the model that sets a dropout rate."""
    fine_tuning: ClassVar[Mapping[str, Any]] = {}
    """Changes to the training recipe when training starts from a checkpoint."""
    checkpoint_type: ClassVar[str] = ""
    """Value of ``model_type`` in the ``config.json`` of the model's checkpoints. If empty, `name` is used."""
    base: ClassVar[str] = ""
    """Prefix of the encoder's parameters, such as ``bert.``. Checkpoints that contain only the encoder omit the
    prefix."""
    head: ClassVar[Sequence[str]] = ()
    """Prefixes of the parameters that are missing, or have a different shape, in checkpoints for other tasks."""
    legacy_names: ClassVar[Mapping[str, str]] = {}
    """Mapping from the parameter name suffixes used in older checkpoints to the canonical suffixes."""
    checkpoint_requires: ClassVar[Mapping[str, Any]] = {}
    """Required values of fields in a checkpoint's ``config.json`` that are not part of `Config`."""

    checkpoint_sizes: ClassVar[Mapping[str, str]] = {}
    """Mapping from fields of `Config` to names of canonical arrays, such as ``{"vocab_size":
    "bert.embeddings.word_embeddings.weight"}``. Each field specifies the length of the first axis of its array. Fields
    whose values differ from the axis lengths are reported before any run starts."""

    @abstractmethod
    def parameters(self, config: ConfigT, info: DataInfo) -> Sequence[Parameter]:
        """Return all canonical arrays of the model, including running statistics.

        Parameters
        ----------
        config : Config
            Sizes of the model.
        info : DataInfo
            Description of the prepared data.

        Returns
        -------
        sequence of Parameter
            The parameters, each with a unique name.
        """

    @abstractmethod
    def flops_per_sample(self, config: ConfigT, info: DataInfo) -> float:
        """Return the number of floating-point operations in the forward pass for one example.

        Implementations must document their formula in this method's docstring.

        Parameters
        ----------
        config : Config
            Sizes of the model.
        info : DataInfo
            Description of the prepared data.

        Returns
        -------
        float
            Number of operations. A multiply-add counts as two operations.
        """

    def solve(self, config: ConfigT, info: DataInfo, train: Split) -> dict[str, Array] | None:
        """Return the optimal weights if the model has a closed-form solution.

        Parameters
        ----------
        config : Config
            Sizes of the model.
        info : DataInfo
            Description of the prepared data.
        train : Split
            Prepared training examples. The arrays are read-only.

        Returns
        -------
        dict of str to ndarray, or None
            Weights with canonical shapes, keyed by canonical name. The value is None if the model has no closed-form
            solution.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class NetworkRef:
    """Reference to the function that builds the network of a model for a backend.

    The function is specified as a string, so that the framework is imported only when the function is called.
    """

    model: str
    """Name of the model family."""
    backend: str
    """Name of the backend."""
    build: str
    """Location of the function in the form ``"module:callable"``. The signature of the function is ``build(config,
    info, dropout) -> Network``. The module may import the framework."""
    fitted_weights: bool = False
    """True if the backend fits the model in one call (`Backend.trains_by_steps` is False), and `Session.get_weights`
    returns arrays from which `Session.set_weights` restores the fitted model exactly. The names and shapes of the
    arrays need not match those of `Model.parameters`. Such a model can be applied to new data."""


@dataclass(frozen=True)
class Binding:
    """Mapping between a canonical array and a variable of a network.

    Notes
    -----
    The value of the variable is ``canonical.transpose(axes).reshape(shape)``.
    """

    variable: Any
    """Parameter, buffer or variable of the framework."""
    axes: tuple[int, ...] = ()
    """Permutation of the canonical axes. An empty tuple means that the axes are not transposed."""
    shape: tuple[int, ...] = ()
    """Shape of the variable after the transposition. An empty tuple means that the array is not reshaped."""

    def to_own(self, canonical: Array) -> Array:
        """Convert an array from the canonical layout to the layout of the variable.

        Parameters
        ----------
        canonical : ndarray
            Array in canonical shape.

        Returns
        -------
        ndarray
            Array with the shape of the variable, which may share memory with `canonical`.

        Raises
        ------
        ValueError
            If `axes` or `shape` does not match the array.
        """
        own = canonical.transpose(self.axes) if self.axes else canonical
        return own.reshape(self.shape) if self.shape else own

    def to_canonical(self, own: Array, shape: tuple[int, ...]) -> Array:
        """Convert an array from the layout of the variable to the canonical layout. Inverse of `to_own`.

        Parameters
        ----------
        own : ndarray
            Array with the shape of the variable.
        shape : tuple of int
            Canonical shape.

        Returns
        -------
        ndarray
            Array with the canonical shape, which may share memory with `own`.

        Raises
        ------
        ValueError
            If the array cannot be converted to `shape`.
        """
        if not self.axes:
            return own.reshape(shape)
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return own.reshape([shape[axis] for axis in self.axes]).transpose(inverse)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model built with a framework, as returned by the function that a `NetworkRef` refers to.

    Every canonical array must have a binding, and every trainable variable of the module must be bound.
    """

    module: Any
    """Module or function of the framework. The backend's documentation defines how the network is called."""
    bindings: Mapping[str, Binding]
    """Bindings by canonical name."""


BuildNetwork = Callable[[Any, DataInfo, float], Network]
"""Type of a function that builds a network from a configuration, a `DataInfo` and the dropout probability."""

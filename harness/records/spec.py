"""`RunSpec`, the specification of a run, and its parts, and `DataInfo`, the description of prepared data."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.records.protocol import Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

Objective = Literal["classification", "regression", "token_classification"]
"""Training objectives. ``token_classification`` assigns a class to each position of an example, such as each word of a
sentence."""

IGNORED = -100
"""Target for positions without a class in token classification, such as padding. These positions are excluded from the
loss and the scores."""

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training settings, which have the same meaning for every backend.

    The optimizers are defined as follows, where p is a parameter, g its gradient, a the scheduled learning rate, w the
    weight decay and t the number of the step, starting at 1:

    - ``sgd``: g += w p; v = momentum v + g; p -= a v (with ``nesterov``: p -= a (g + momentum v)).
    - ``rmsprop``: g += w p; s = 0.99 s + 0.01 g^2; p -= a g / (sqrt(s) + epsilon).
    - ``adam`` (Kingma and Ba 2015): g += w p; m, s are the moving averages; m^ = m / (1 - beta1^t),
      s^ = s / (1 - beta2^t); p -= a m^ / (sqrt(s^) + epsilon).
    - ``adamw`` (Loshchilov and Hutter 2019): p -= a w p first, then the Adam step without w in g.

    Weight decay is applied only to parameters with ``Parameter.decay=True``. The constructor raises `ValueError` if a
    value is out of range.
    """

    epochs: int = 10
    """Number of passes over the training split."""
    batch_size: int = 64
    """Number of examples in a batch, for training and inference."""
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = "adamw"
    """Update rule of the optimizer."""
    learning_rate: float = 1e-3
    """Learning rate after warm-up and before decay."""
    momentum: float = 0.0
    """Momentum of ``sgd``."""
    nesterov: bool = False
    """If True, ``sgd`` uses Nesterov momentum."""
    beta1: float = 0.9
    """Decay rate of the first moment estimate in ``adam`` and ``adamw``."""
    beta2: float = 0.999
    """Decay rate of the second moment estimate in ``adam`` and ``adamw``."""
    epsilon: float = 1e-8
    """Constant added to the denominator of the step in ``rmsprop``, ``adam`` and ``adamw``."""
    weight_decay: float = 0.0
    """Weight decay, which is added to the gradient except in ``adamw``, where it is decoupled."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate schedule after warm-up: constant, or linear or cosine decay to zero at the last step."""
    warmup_fraction: float = 0.0
    """Fraction of all steps during which the learning rate increases linearly from zero."""
    clip_norm: float | None = None
    """Maximum global 2-norm of the gradients. Gradients with a larger norm are scaled down to this norm. None for no
    clipping."""
    label_smoothing: float = 0.0
    """Probability mass that the target distribution spreads evenly over all classes (Szegedy et al. 2016)."""
    dropout: float = 0.0
    """Dropout probability in all dropout layers of the model, or 0 for models without dropout layers."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError("learning_rate must be positive and finite")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must be in [0, 1], got {self.warmup_fraction}")
        for name in ("label_smoothing", "dropout", "momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise ValueError("clip_norm must be positive and finite; omit it to disable clipping")
        if not (0 <= self.weight_decay < float("inf") and 0 <= self.epsilon < float("inf")):
            raise ValueError("weight_decay and epsilon must be finite and not negative")


class Pretrained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint from which a run starts."""

    name: str
    """Folder name or Hugging Face Hub ID."""
    digest: str
    """SHA-256 (hex) over the names and digests of the checkpoint's files: weights, configuration and tokenizer."""
    revision: str = ""
    """Commit hash on the Hugging Face Hub, or an empty string for a folder."""
    path: str = ""
    """Path of the folder. The path is not part of the run's key."""


class DataSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Path of the user's data and the inferred options, which are recorded but are not part of the run's key."""

    path: str
    """Absolute path."""
    guessed: tuple[str, ...] = ()
    """Names of the dataset options that were inferred from the data."""
    warnings: tuple[str, ...] = ()
    """Warnings about the data that were issued before the run started. They are also included in
    `DataInfo.warnings`."""


ENV_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Pattern of the names of environments."""


class RunSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Specification of one run. All settings except `device` are resolved. Equal specifications have equal keys."""

    task: str
    dataset: str
    model: str
    """Variant name, such as ``bert-tiny``."""
    backend: str
    device: str = "auto"
    """The requested device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Only a process that imports the framework can list the available devices, so the worker resolves the requested
    device (`harness.execute.preparation.choose_device`). In a record, the specification and its key contain the
    resolved device.
    """
    precision: Precision = "fp32"
    """Numeric precision of training and inference."""
    compile: bool = False
    """True to compile the model with the backend's compiler."""
    deterministic: bool = False
    """True to use only deterministic kernels, which are slower on a GPU."""
    env: str = ""
    """Name of the environment (``harness env``) in which the run is executed, or an empty string for the environment of
    the command."""
    seed: int = 0
    """Seed for initial weights, batch order, augmentation and dropout."""
    threads: int = 1
    """Number of CPU threads."""
    recipe: Recipe
    protocol: Protocol = Protocol()
    pretrained: Pretrained | None = None
    """Checkpoint from which training starts, or None for initial weights drawn from the seed."""
    task_options: dict[str, Any] = {}
    """Options of the task, by name."""
    dataset_options: dict[str, Any] = {}
    """Options of the dataset, by name."""
    model_options: dict[str, Any] = {}
    """Values of the model's configuration, by name."""
    source: DataSource | None = None
    """Source of the user's data, or None for a dataset that a plugin provides."""

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the specification's canonical JSON, which identifies the run.

        The path of a checkpoint is omitted. If there is no checkpoint or no named environment, the field is omitted, so
        that the keys of older runs remain valid. User-provided data are identified by a digest of their content, which
        is a dataset option, and not by a name or path.
        """
        return key_of(msgspec.to_builtins(self))

    @property
    def group_key(self) -> str:
        """Key of the specification, computed without the seed and the published split.

        Runs that are aggregated in one row of the comparison table share this key.
        """
        options = {name: value for name, value in self.dataset_options.items() if name != "split"}
        return msgspec.structs.replace(self, seed=0, dataset_options=options).key

    @property
    def title(self) -> str:
        """Task, model, backend, environment, published split and seed, for progress messages."""
        env = [self.env] if self.env else []
        split = [] if self.split is None else [f"split {self.split}"]
        return " · ".join([self.task, self.model, self.backend, *env, *split, f"seed {self.seed}"])

    @property
    def split(self) -> int | None:
        """Number of the published split (dataset option ``split``), or None if the dataset has no numbered splits."""
        return self.dataset_options.get("split")


def key_of(values: dict[str, Any]) -> str:
    """Return the key of a specification in the form of plain JSON values; see `RunSpec.key`."""
    values = dict(values)
    if values.pop("source", None) is not None:
        values["dataset"] = ""
    if not values.get("env"):
        values.pop("env", None)
    if (pretrained := values.pop("pretrained", None)) is not None:
        place, digest = pretrained["path"], pretrained["digest"]
        values["pretrained"] = {**pretrained, "path": ""}
        values["task_options"] = {k: digest if v == place else v for k, v in values["task_options"].items()}
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


class PluginRef(Struct, frozen=True, kw_only=True):
    """Reference to a plugin, with the information needed to load it in another process."""

    name: str
    value: str
    """Value of the entry point (``module`` or ``module:attribute``), or the absolute path of a plugin in a single
    file."""
    distribution: str
    """Distribution that provides the plugin, or ``file`` or ``module`` if the plugin is not installed."""
    version: str
    code_digest: str = ""
    """SHA-256 (hex) of the plugin's Python files at the time of the run, or an empty string in older records."""


class InputSpec(Struct, frozen=True, kw_only=True):
    """Shape of an input array without the batch axis, and name of its numpy dtype."""

    shape: tuple[int, ...]
    """Shape of one example."""
    dtype: str
    """Name of the numpy dtype, such as ``float32``."""


class SplitInfo(Struct, frozen=True, kw_only=True):
    """Statistics of one split of the prepared data."""

    examples: int
    """Number of examples."""
    classes: tuple[int, ...] = ()
    """Number of examples of each class (for token classification, number of positions), in the order of
    `DataInfo.label_names`. Empty for regression."""
    repeated: int = 0
    """Number of examples whose prepared inputs are equal to those of an earlier example of the split."""
    shared: int = 0
    """Number of examples whose prepared inputs also occur in the training split. This number is 0 for the training
    split."""


class DataInfo(Struct, frozen=True, kw_only=True):
    """Description of the prepared data, from which models derive their shapes."""

    kind: str
    """Kind of prepared input: ``tokens``, ``image``, ``waveform``, ``features``, or a kind defined by a plugin."""
    inputs: dict[str, InputSpec]
    """Shape and dtype of each input, by name."""
    objective: Objective
    outputs: int
    """Number of classes, or number of regression targets."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their indices; for regression, names of the targets."""
    target_mean: tuple[float, ...] = ()
    """Means of the training targets, used to standardize regression targets. `in_target_unit` reverses the
    standardization."""
    target_scale: tuple[float, ...] = ()
    """Scales of the training targets, used to standardize regression targets."""
    details: dict[str, bool | int | float | str] = {}
    """Additional results of preprocessing, such as ``vocab_size``, ``pad_id``, ``sample_rate_hz`` and
    ``truncated_share``."""
    warnings: tuple[str, ...] = ()
    """Warnings about the data that were issued by the dataset, the task or the core."""
    splits: dict[str, SplitInfo] = {}
    """Statistics of the splits ``train``, ``validation`` and ``test``, computed by the core, or an empty dictionary in
    older records.
    """

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each regression target, or an empty tuple for other objectives.

        An unknown unit is an empty string. The entry ``target_unit`` of `details` contains the unit that all targets
        share, or one unit per target, separated by commas.
        """
        if self.objective != "regression":
            return ()
        stated = str(self.details.get("target_unit", ""))
        parts = tuple(part.strip() for part in stated.split(","))
        return parts if len(parts) == self.outputs else (stated,) * self.outputs

    def in_target_unit(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert standardized targets or predictions to the unit of the original targets.

        Parameters
        ----------
        values : ndarray of shape (N, T)
            Standardized targets or predictions of a regression task.

        Returns
        -------
        ndarray of shape (N, T), float64
            Values in the targets' unit. For objectives other than regression, the input is returned unchanged.
        """
        if self.objective != "regression":
            return values
        import numpy as np

        scale, mean = np.array(self.target_scale or 1.0), np.array(self.target_mean or 0.0)
        restored: NDArray[Any] = values.astype("float64") * scale + mean
        return restored

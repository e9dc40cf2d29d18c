"""What a run is to do: `RunSpec` and its parts, and what a task tells a model of its data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.records.protocol import Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

Objective = Literal["classification", "regression", "token_classification"]
"""``token_classification``: a class for each position of an example, such as each word of a sentence."""

IGNORED = -100
"""Token classification: the target of a position that no class is asked for, such as padding. It counts neither in the
loss nor in a score."""

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is trained. Every backend gives these the meaning stated here.

    Optimizers, with gradient g, learning rate a (scheduled), weight decay w, step t from 1:

    - ``sgd``: g += w p; v = momentum v + g; p -= a v (with ``nesterov``: p -= a (g + momentum v)).
    - ``rmsprop``: g += w p; s = 0.99 s + 0.01 g^2; p -= a g / (sqrt(s) + epsilon).
    - ``adam`` (Kingma and Ba 2015): g += w p; m, s are the moving averages; m^ = m / (1 - beta1^t),
      s^ = s / (1 - beta2^t); p -= a m^ / (sqrt(s^) + epsilon).
    - ``adamw`` (Loshchilov and Hutter 2019): p -= a w p first, then the Adam step without w in g.

    Decay is applied to the parameters whose `Parameter.decay` is true only.
    """

    epochs: int = 10
    batch_size: int = 64
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after warm-up: constant, or decaying to zero at the last step."""
    warmup_fraction: float = 0.0
    """Share of all steps over which the rate rises linearly from zero."""
    clip_norm: float | None = None
    """Gradients are scaled so that their global 2-norm is at most this."""
    label_smoothing: float = 0.0
    dropout: float = 0.0
    """Probability used at every dropout place of the model; 0 for models that have none."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError("learning_rate must be positive and finite")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must lie in [0, 1], got {self.warmup_fraction}")
        for name in ("label_smoothing", "dropout", "momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise ValueError("clip_norm must be positive and finite; leave it out for no clipping")
        if not (0 <= self.weight_decay < float("inf") and 0 <= self.epsilon < float("inf")):
            raise ValueError("weight_decay and epsilon must be finite and not negative")


class Pretrained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint that a run starts from."""

    name: str
    """The folder's name, or the hub id."""
    digest: str
    """SHA-256 (hex) of the names and SHA-256 of its files: weights, configuration, tokenizer."""
    revision: str = ""
    """Commit of a hub id."""
    path: str = ""
    """The folder; where it lies is no part of a run's identity."""


class DataSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the user's own data lay, and what was guessed of them: told in the record, no part of a run's identity."""

    path: str
    """Absolute."""
    guessed: tuple[str, ...] = ()
    """The dataset options that were filled in."""


class RunSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run does, with every setting resolved except `device`. Equal specs have equal `key`s."""

    task: str
    dataset: str
    model: str
    """Variant name, such as ``bert-tiny``."""
    backend: str
    device: str = "auto"
    """The requested device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Only a process that imports the framework knows its devices, so the worker resolves the request
    (`harness.execute.preparation.choose_device`). The spec in a record, and hence its key, holds the resolved device.
    """
    precision: Precision = "fp32"
    compile: bool = False
    deterministic: bool = False
    """Ask the backend for kernels that give the same bits every time; slower on a GPU."""
    seed: int = 0
    threads: int = 1
    recipe: Recipe
    protocol: Protocol = Protocol()
    pretrained: Pretrained | None = None
    task_options: dict[str, Any] = {}
    dataset_options: dict[str, Any] = {}
    model_options: dict[str, Any] = {}
    source: DataSource | None = None
    """Of the user's own data; None for a dataset that a plugin provides."""

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the spec's canonical JSON: the run's identity.

        Where a checkpoint lies is left out; and that there is none, so that older runs keep their keys. The user's own
        data count by the digest of their content, which is among the dataset options, wherever they lie and whatever
        they are called.
        """
        values: dict[str, Any] = msgspec.to_builtins(self)
        if values.pop("source") is not None:
            values["dataset"] = ""
        if self.pretrained is None:
            del values["pretrained"]
        else:
            place, digest = self.pretrained.path, self.pretrained.digest
            values["pretrained"]["path"] = ""
            values["task_options"] = {k: digest if v == place else v for k, v in self.task_options.items()}
        return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()

    @property
    def group_key(self) -> str:
        """`key` with the seed and the published split left out: runs that one row sums up share it."""
        options = {name: value for name, value in self.dataset_options.items() if name != "split"}
        return msgspec.structs.replace(self, seed=0, dataset_options=options).key

    @property
    def split(self) -> int | None:
        """Which of its published splits the dataset was asked for, by its option ``split``; None where it has one."""
        return self.dataset_options.get("split")


class PluginRef(Struct, frozen=True, kw_only=True):
    """One plugin, enough to load it again in another process."""

    name: str
    value: str
    """Entry-point value, ``module`` or ``module:attribute``; of a plugin in one file, its absolute path."""
    distribution: str
    """That brings it; ``file`` or ``module`` for what none does."""
    version: str
    code_digest: str = ""
    """SHA-256 (hex) of its Python files when the run was made; empty in records of before there was one."""


class InputSpec(Struct, frozen=True, kw_only=True):
    """One input array: shape of a single example (no batch axis) and numpy dtype name."""

    shape: tuple[int, ...]
    dtype: str


class DataInfo(Struct, frozen=True, kw_only=True):
    """What a model needs to know of the prepared data."""

    kind: str
    """``tokens``, ``image``, ``waveform``, ``features`` or a plugin's own."""
    inputs: dict[str, InputSpec]
    objective: Objective
    outputs: int
    """Number of classes, or of regression targets."""
    label_names: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    """Regression: training mean and scale that standardized the targets; `in_target_unit` undoes it."""
    target_scale: tuple[float, ...] = ()
    details: dict[str, bool | int | float | str] = {}
    """What the preprocessing found: ``vocab_size``, ``pad_id``, ``sample_rate_hz``, ``truncated_share`` ..."""

    def in_target_unit(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return targets or predictions of regression, ``[N, T]``, as float64 in the targets' own unit.

        Those of other objectives are returned unchanged.
        """
        if self.objective != "regression":
            return values
        import numpy as np

        scale, mean = np.array(self.target_scale or 1.0), np.array(self.target_mean or 0.0)
        restored: NDArray[Any] = values.astype("float64") * scale + mean
        return restored

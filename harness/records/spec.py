"""`RunSpec`, the specification of a run, with its parts, and `DataInfo`, the description of prepared data."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.records.protocol import Protocol
from harness.records.recipe import Recipe, without_added_defaults

if TYPE_CHECKING:
    from numpy.typing import NDArray

Objective = Literal["classification", "regression", "token_classification"]
"""Training objectives. In ``token_classification``, each position of an example, such as each word of a sentence, has a
class."""

IGNORED = -100
"""Target for positions without a class in token classification, such as padding. These positions are excluded from the
loss and the scores."""

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64", "int8"]
"""Numeric precisions. ``int8`` is only for inference with trained weights."""


class Pretrained(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint from which a run starts."""

    name: str
    """Folder name or Hugging Face Hub ID."""
    digest: str
    """SHA-256 (hex) of the names and digests of the checkpoint's files: weights, configuration and tokenizer."""
    revision: str = ""
    """Commit hash on the Hugging Face Hub, or an empty string for a folder."""
    path: str = ""
    """Path of the folder. The path is not part of the run's key."""


class ExportedModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The exported model that a run executes instead of a network."""

    exporter: str
    """Backend that exports the model."""
    digest: str = ""
    """SHA-256 (hex) of the files written by ``harness export``, or an empty string if the run exports the model."""
    path: str = ""
    """Path of the folder written by ``harness export``. The path is not part of the run's key."""


class TrainedWeights(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trained weights of another run, used instead of training or as the teacher in knowledge distillation."""

    run: str
    """Id of the run that trained the weights."""
    backend: str
    """Backend that trained the weights."""
    digest: str
    """SHA-256 (hex) of the canonical weights, as in `Provenance.final_weights_digest`."""
    dataset_digest: str
    """SHA-256 (hex) of the prepared data used to train the weights."""
    path: str = ""
    """Directory path of the run that trained the weights. The path is not part of the run's key."""
    exported: ExportedModel | None = None
    """The exported model that contains the weights, or None if the backend builds a network."""


class DataSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Path of the user's data, and the options that were inferred from the data.

    The path and the options are recorded, but are not part of the run's key.
    """

    path: str
    """Absolute path."""
    memory: str = ""
    """Type of the in-memory object that contained the data, such as ``DataFrame``, or an empty string if the data come
    from the user's files."""
    guessed: tuple[str, ...] = ()
    """Names of the dataset options that were inferred from the data."""
    warnings: tuple[str, ...] = ()
    """Warnings about the data that were issued before the run started. The warnings are also part of
    `DataInfo.warnings`."""
    training_examples: int | None = None
    """Number of training examples, used to choose default settings. The number is the same for all folds or random
    splits, although their sizes may differ slightly. The value is None in older records."""
    defaults: tuple[str, ...] = ()
    """Sentences about the settings chosen based on the number of training examples."""


ENV_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Pattern for environment names."""


ADDED_DATASET_OPTIONS = ("weight_column", "folds", "fold_column", "random_splits", "split")
"""Dataset options for the user's data, added in later versions. The default of each of these options is None."""

MAX_DATASET_IN_ID = 24
"""Maximum length of the dataset's name within a run id, in characters."""

MAX_DEVICES = 256
"""Maximum number of devices for a run. All devices must be in one machine."""


class RunSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Specification of one run.

    All settings except `device` have been resolved. Equal specifications have equal keys.
    """

    task: str
    dataset: str
    model: str
    """Variant name, such as ``bert-tiny``."""
    backend: str
    device: str = "auto"
    """The requested device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Only a process that imports the framework can list the available devices. The worker therefore resolves the
    requested device; see `harness.execute.preparation.choose_device`. In a record, the specification contains the
    resolved device, and the key is computed with this device.
    """
    precision: Precision = "fp32"
    """Numeric precision of training and inference."""
    compile: bool = False
    """True to compile the model with the backend's compiler."""
    deterministic: bool = False
    """True to use only deterministic kernels, which are slower on a GPU."""
    env: str = ""
    """Name of the environment (``harness env``) in which the run is executed. The name is an empty string for the
    environment in which the command itself is executed."""
    seed: int = 0
    """Seed for initial weights, batch order, augmentation and dropout."""
    threads: int = 1
    """Number of CPU threads per process."""
    devices: int = 1
    """Number of devices on which the model is trained, with one process per device. With several devices, `device` is
    the first one."""
    recipe: Recipe
    protocol: Protocol = Protocol()
    pretrained: Pretrained | None = None
    """Checkpoint from which training starts. If None, the initial weights are sampled with the seed."""
    task_options: dict[str, Any] = {}
    """Options of the task, keyed by name."""
    dataset_options: dict[str, Any] = {}
    """Options of the dataset, keyed by name."""
    model_options: dict[str, Any] = {}
    """Values of the model's configuration, by name."""
    metric: str = ""
    """Name of the primary metric, which determines the best epoch. An empty string selects the task's primary
    metric."""
    source: DataSource | None = None
    """Source of the user's data, or None for a dataset that a plugin provides."""
    weights: TrainedWeights | None = None
    """Trained weights used to measure inference, or None for a run that trains a model. If trained weights are
    specified, the run does not train a model. In this case, `recipe` is the recipe used to train the weights, and only
    its batch size is used."""
    teacher: TrainedWeights | None = None
    """Trained weights of the teacher in knowledge distillation (`Recipe.distillation_alpha`), or None for training
    without a teacher."""

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the specification's canonical JSON, which identifies the run.

        The paths of checkpoints and trained weights are omitted. Parts that were added later are omitted if they have
        their default values, so that the keys of older runs remain valid. The parts that were added later are
        `Protocol.save_outputs`, the newer fields of `Recipe`, the checkpoint, the named environment, the number of
        devices, the primary metric, the trained weights and the teacher. User-provided data are identified by a digest
        of their content, which is a dataset option, rather than by a name or path.
        """
        return key_of(msgspec.to_builtins(self))

    @property
    def group_key(self) -> str:
        """Key of the specification, computed without the seed and the numbered split.

        Runs with the same key are aggregated in one row of the comparison table.
        """
        options = self.options_of_all_splits
        weights = self.weights and TrainedWeights(
            run="",
            backend=self.weights.backend,
            digest="",
            dataset_digest=self.weights.dataset_digest,
            exported=self.weights.exported and ExportedModel(exporter=self.weights.exported.exporter),
        )
        if weights is not None and self.split is not None:
            weights = msgspec.structs.replace(weights, dataset_digest="")
        return msgspec.structs.replace(self, seed=0, dataset_options=options, weights=weights).key

    @property
    def options_of_all_splits(self) -> dict[str, Any]:
        """Dataset options without the number of the split, and without added options that have their default value."""
        return {name: value for name, value in _without_defaults(self.dataset_options).items() if name != "split"}

    @property
    def title(self) -> str:
        """Description of a run for progress messages.

        The description consists of the task, model, backend, environment, number of devices, numbered split and seed.

        If the run has a teacher, the model's name is followed by ``distilled``.
        """
        env = [self.env] if self.env else []
        devices = [f"{self.devices} devices"] if self.devices > 1 else []
        split = [self.split_title] if self.split_title else []
        taught = ["distilled"] if self.teacher is not None else []
        return " · ".join([self.task, self.model, *taught, self.backend, *env, *devices, *split, f"seed {self.seed}"])

    @property
    def stem(self) -> str:
        """Task, dataset, model, backend and named environment, which form the beginning of the run's id.

        In the dataset's name, all characters except ASCII letters and digits are replaced with hyphens, and at most 24
        characters are kept. If no characters are left, the dataset's name is omitted.
        """
        dataset = re.sub(r"[^A-Za-z0-9]+", "-", self.dataset).strip("-")[:MAX_DATASET_IN_ID].rstrip("-")
        parts = (self.task, dataset, self.model, self.backend, self.env)
        return "-".join(part for part in parts if part)

    @property
    def stem_without_dataset(self) -> str:
        """Beginning of the run's id in older records, whose ids do not contain the dataset; see `stem`."""
        return "-".join(part for part in (self.task, self.model, self.backend, self.env) if part)

    @property
    def used_devices(self) -> tuple[str, ...]:
        """Names of the devices of the run: consecutive CUDA devices, or only `device` if it has no number."""
        kind, _, number = self.device.partition(":")
        if not number:
            return (self.device,)
        return tuple(f"{kind}:{int(number) + rank}" for rank in range(self.devices))

    @property
    def backend_in_env(self) -> str:
        """Name of the backend, followed by the name of the named environment, if any, as in ``torch in old``."""
        return f"{self.backend} in {self.env}" if self.env else self.backend

    @property
    def split(self) -> int | None:
        """Number of the published split, fold or random split, or None if the dataset has no numbered splits."""
        return self.dataset_options.get("split")

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Names of the user's slice columns and of their intersections, such as ``sex*region``."""
        names = self.dataset_options.get("slice_columns") if self.source is not None else None
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    @property
    def split_count(self) -> int | None:
        """Total number of folds or random splits to which `split` belongs, or None for a published or single split."""
        count = self.dataset_options.get("folds") or self.dataset_options.get("random_splits")
        return count if isinstance(count, int) else None

    @property
    def split_kind(self) -> str:
        """``fold``, ``random split`` or, for a published split, ``split``."""
        return "split" if self.split_count is None else "fold" if self.dataset_options.get("folds") else "random split"

    @property
    def split_title(self) -> str:
        """Name of the split, such as ``split 3`` or ``fold 2/5``, or an empty string if the splits are not numbered."""
        total = "" if self.split_count is None else f"/{self.split_count}"
        return "" if self.split is None else f"{self.split_kind} {self.split}{total}"


def key_of(values: dict[str, Any]) -> str:
    """Return the key of a specification represented as plain JSON values; see `RunSpec.key`."""
    values = values | {"recipe": without_added_defaults(values["recipe"])}
    if values.pop("source", None) is not None:
        values["dataset"] = ""
    for name in ("env", "metric"):
        if not values.get(name):
            values.pop(name, None)
    for name in ("weights", "teacher"):
        if (weights := values.pop(name, None)) is not None:
            values[name] = {**weights, "path": ""}
            if (exported := values[name].pop("exported", None)) is not None:
                values[name]["exported"] = {**exported, "path": ""}
    values["dataset_options"] = _without_defaults(values["dataset_options"])
    if not values["protocol"].get("save_outputs"):
        values["protocol"] = {name: each for name, each in values["protocol"].items() if name != "save_outputs"}
    if values.get("devices") == 1:
        del values["devices"]
    if (pretrained := values.pop("pretrained", None)) is not None:
        place, digest = pretrained["path"], pretrained["digest"]
        values["pretrained"] = {**pretrained, "path": ""}
        values["task_options"] = {k: digest if v == place else v for k, v in values["task_options"].items()}
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()


def _without_defaults(dataset_options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those in `ADDED_DATASET_OPTIONS` that have their default value, None."""
    return {k: v for k, v in dataset_options.items() if v is not None or k not in ADDED_DATASET_OPTIONS}


class PluginRef(Struct, frozen=True, kw_only=True):
    """Reference to a plugin, with the information needed to load it in another process."""

    name: str
    value: str
    """Value of the entry point (``module`` or ``module:attribute``). For a plugin in a single file, the value is the
    absolute path of the file."""
    distribution: str
    """Distribution that provides the plugin. For a plugin that is not installed, the value is ``file`` or
    ``module``."""
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
    """Number of examples in each class, in the order of `DataInfo.label_names`. For token classification, positions are
    counted instead of examples. Empty for regression."""
    repeated: int = 0
    """Number of examples with the same prepared inputs as an earlier example in the split."""
    shared: int = 0
    """Number of examples with the same prepared inputs as an example in the training split. The number is always 0 for
    the training split."""
    counted: float = 0.0
    """Total of `DataInfo.counts` over all examples, without padding, or 0 if the task counts only examples."""


class TableColumns(Struct, frozen=True, kw_only=True):
    """Layout of the prepared ``features`` of a table: numbers, indicators of missing numbers, and categories."""

    numbers: int
    """Number of numeric columns. The numeric columns come first."""
    indicators: tuple[int, ...] = ()
    """Positions of the numeric columns that have an indicator column. The indicator is 1 if the number is missing. The
    indicators follow the numeric columns."""
    categories: tuple[int, ...] = ()
    """Number of one-hot columns for each categorical column. The one-hot columns follow the indicators."""


class DataInfo(Struct, frozen=True, kw_only=True):
    """Description of the prepared data. Models derive their shapes from this description."""

    kind: str
    """Kind of prepared input: ``tokens``, ``image``, ``waveform``, ``features``, or a kind defined by a plugin."""
    inputs: dict[str, InputSpec]
    """Shape and dtype of each input, by name."""
    objective: Objective
    """Training objective."""
    outputs: int
    """Number of classes, or number of regression targets."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their indices. For regression, the tuple contains the names of the
    targets."""
    target_mean: tuple[float, ...] = ()
    """Means of the training targets, used to standardize regression targets. `in_target_unit` reverses the
    standardization."""
    target_scale: tuple[float, ...] = ()
    """Scales of the training targets, used to standardize regression targets."""
    details: dict[str, bool | int | float | str] = {}
    """Additional results of preprocessing, by name, such as ``vocab_size``, ``pad_id``, ``sample_rate_hz`` and
    ``truncated_share``."""
    warnings: tuple[str, ...] = ()
    """Warnings about the data that were issued by the dataset, the task or the core."""
    splits: dict[str, SplitInfo] = {}
    """Statistics of the splits ``train``, ``validation`` and ``test``, computed by the core, or an empty dictionary in
    older records.
    """
    columns: TableColumns | None = None
    """Layout of the prepared columns of a table, or None if it is not known, for example in older records."""
    counts: str = ""
    """Name of the units that the task counts in addition to examples (`Task.counts`), such as ``tokens``. The name is
    an empty string if the task counts only examples. `SplitInfo.counted` contains the totals."""

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each regression target, or an empty tuple for other objectives.

        An unknown unit is an empty string. In `details`, ``target_unit`` contains the unit that all targets share, or
        one unit per target, separated by commas.
        """
        if self.objective != "regression":
            return ()
        stated = str(self.details.get("target_unit", ""))
        parts = tuple(part.strip() for part in stated.split(","))
        return parts if len(parts) == self.outputs else (stated,) * self.outputs

    def in_target_unit(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert standardized targets or predictions to the units of the original targets.

        Parameters
        ----------
        values : ndarray of shape (N, T)
            Standardized targets or predictions of a regression task.

        Returns
        -------
        ndarray of shape (N, T), float64
            Values in the targets' units. For objectives other than regression, the input is returned unchanged.
        """
        if self.objective != "regression":
            return values
        import numpy as np

        scale, mean = np.array(self.target_scale or 1.0), np.array(self.target_mean or 0.0)
        restored: NDArray[Any] = values.astype("float64") * scale + mean
        return restored

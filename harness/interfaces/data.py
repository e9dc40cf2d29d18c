"""The interfaces for data plugins, `Dataset` and `Task`, and the arrays that are passed between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from msgspec import Struct
from typing_extensions import TypeVar

from harness.interfaces.remote import RemoteFile
from harness.records import DataInfo, Objective, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Augment = Callable[[dict[str, Array], np.random.Generator], dict[str, Array]]

OptionsT = TypeVar("OptionsT", bound=Struct, default=Any)


class RawInput(Struct, frozen=True, kw_only=True):
    """Shape and dtype of one input of a single raw example, before a task prepares the example."""

    shape: tuple[int | None, ...]
    """Shape without the batch axis. The length of an axis is None if it differs between examples, as for the time axis
    of a waveform. Strings have the shape ``()``."""
    dtype: str
    """Name of the numpy dtype, or ``str``."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples in a fixed order."""

    inputs: Mapping[str, Array]
    """Arrays ``[N, ...]``, keyed by input name.

    Raw data may contain object arrays. The elements of ``text`` are str, and the elements of ``waveform`` are float32
    arrays ``[samples]`` with values in [-1, 1]. Prepared data contain only numeric arrays. A large input may be an
    array-like object that reads its rows from a file. An array-like object has ``shape`` and ``dtype``, supports
    ``len`` and ``np.asarray``, and can be indexed with an int array or a slice.
    """
    targets: Array
    """Class indices (int64 ``[N]``) for classification, values (float ``[N, T]``) for regression, or the class index of
    each position (int64 ``[N, L]``) for token classification. Positions without a target contain `harness.IGNORED`.
    Every example must have at least one position with a target."""
    groups: Mapping[str, Array] = field(default_factory=dict)
    """Arrays ``[N]``, keyed by group name. An array contains, for example, the speaker of each example. An empty
    string, None or NaN means that an example has no group. If the published splits are merged to draw folds or random
    splits, the examples of each group stay together. The groups of an array may be divided if any of them has examples
    both in the published test split and in another split."""
    rows: Array | None = None
    """Origin of each example ``[N]``: either the row number in the source file (int64, starting at 1) or the path of
    the example's file (str). The value is None if the dataset does not identify its examples. The core copies the array
    to the prepared split."""
    weights: Array | None = None
    """Weights ``[N]`` of the examples in the training loss. Weights must be non-negative. If None, all examples have
    the same weight. The core divides the weights by their mean over the training split, and copies them to the prepared
    split as float32. Scores are computed without weights."""
    teacher_logits: Array | None = None
    """Logits of the teacher in knowledge distillation. The logits are float32 ``[N, C]`` or, for token classification,
    ``[N, L, C]``. The core sets this attribute for the training split. None without distillation."""

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)

    def take(self, index: Array) -> Split:
        """Select examples by position.

        Parameters
        ----------
        index : ndarray of int
            Positions ``[M]`` of the examples. Positions may be repeated.

        Returns
        -------
        Split
            Selected examples, in the order of `index`.
        """
        return Split(
            inputs={name: array[index] for name, array in self.inputs.items()},
            targets=self.targets[index],
            groups={name: array[index] for name, array in self.groups.items()},
            rows=None if self.rows is None else self.rows[index],
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits[index],
            weights=None if self.weights is None else self.weights[index],
        )


@dataclass(frozen=True, kw_only=True)
class RawData:
    """The training, validation and test splits of a dataset, before preprocessing.

    The splits are either published or drawn at random with a fixed seed.
    """

    train: Split
    """Training examples."""
    validation: Split
    """Validation examples."""
    test: Split
    """Test examples."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their indices. For regression, the names of the targets."""
    details: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """Additional information that the task requires, such as ``sample_rate_hz``, or ``target_unit`` for regression. If
    the targets have different units, the units are separated by commas, as in ``"m, kg"``."""
    warnings: Sequence[str] = ()
    """Warnings about data that were inferred, dropped, merged or changed, or that may be wrong. The warnings are
    printed during each run and stored in the record."""
    feature_names: tuple[str, ...] = ()
    """Names of the columns in a table's ``features``, used to find the columns in new files. The tuple is empty if the
    columns have no names."""
    category_names: tuple[str, ...] = ()
    """Names of the columns in a table's ``categories``, in the format of `feature_names`."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """Description of how files were read, such as the number format of each column, as JSON values. The core sets this
    attribute for the user's files and uses it to read new files in the same way as the original files."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Numeric arrays that a task prepares from raw data and that all backends share.

    Preprocessing steps are fitted only on the training split.
    """

    train: Split
    """Training examples."""
    validation: Split
    """Validation examples."""
    test: Split
    """Test examples."""
    info: DataInfo
    """Description of the data, which determines the models' input and output sizes."""
    digest: str = ""
    """SHA-256 (hex) of all arrays in all splits. The core computes this digest."""
    augment: Augment | None = None
    """Function that augments the inputs of a training batch. The value is None if the inputs are not augmented.

    The core sets this attribute to a function that calls `Task.augment`.
    """
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """Preprocessing parameters that were fitted on the training split, such as a vocabulary or means and scales, as
    JSON values. The values need not repeat the contents of `info`. The core stores the values next to the trained
    weights and passes them to `Task.transform`."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """Copy of `RawData.reading`, set by the core."""


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Empty set of options, for plugins without options."""


class SeededSplit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for a dataset that has no published splits and is therefore split at random.

    Create a subclass to add options.
    """

    split_seed: int = 0
    """Seed for the random split, from 0 to 2^32 - 1. Vary the seed to determine how strongly a score depends on the
    split."""

    def __post_init__(self) -> None:
        """Raise `ValueError` if `split_seed` is out of range."""
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must be between 0 and 2^32 - 1, got {self.split_seed}")


class Dataset(ABC, Generic[OptionsT]):
    """A named dataset.

    To create a dataset, subclass `Dataset`, set the class attributes and implement `load`. The type parameter of
    ``Dataset[MyOptions]`` is the type of the options that `load` receives. Set `Options` to the same class.
    """

    name: ClassVar[str]
    """Name of the dataset, as passed to ``--dataset``."""
    kind: ClassVar[str]
    """Kind of raw input: ``text``, ``image``, ``audio`` or ``table``. The kind determines which tasks accept the
    dataset."""
    objective: ClassVar[Objective]
    """Training objective for which the targets are suitable."""
    summary: ClassVar[str]
    """One-line description."""
    license: ClassVar[str] = ""
    """License of the data. The string is an SPDX identifier if one exists, and empty if the license is unknown."""
    Options: ClassVar[type[Struct]] = NoOptions
    """Struct that defines the dataset's options. Users set the fields with ``--set dataset.<field>=``."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes to the training recipe, tuned on the validation split of this dataset and keyed by model variant or
    family."""
    fine_tuning: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Changes to the recipe for models that start from a checkpoint, keyed by model family."""
    task_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Task options for this dataset, such as the vocabulary size, keyed by task name."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Mapping from each required module to the requirement or command that installs the module, as in
    `Backend.requires`. The modules are looked up before any run starts."""
    files: ClassVar[Sequence[RemoteFile]] = ()
    """Files to download from the publisher. The tuple is empty if the plugin includes the data."""
    homepage: ClassVar[str] = ""
    """URL of the dataset's web page."""
    citation: ClassVar[str] = ""
    """BibTeX entry or plain-text reference."""
    notes: ClassVar[str] = ""
    """Limitations to mention when publishing a result, such as withheld labels."""
    examples: ClassVar[Mapping[str, int]] = {}
    """Number of examples in each of the splits ``train``, ``validation`` and ``test``.

    The `examples`, `inputs` and `label_names` attributes describe the data loaded with the default options. The command
    ``harness data info`` shows these attributes, and `harness.testing.assert_as_declared` compares them with the loaded
    data.
    """
    inputs: ClassVar[Mapping[str, RawInput]] = {}
    """Shape and dtype of each input, keyed by input name."""
    label_names: ClassVar[Sequence[str]] = ()
    """Names of the classes, in the order of their indices. For regression, the names of the targets."""
    metric: ClassVar[str] = ""
    """Name of the metric that publications report for this dataset. The metric may be missing from ``harness list
    metrics``."""
    target: ClassVar[float | None] = None
    """Target value of the task's primary metric on the validation split, for measuring time-to-target. The value is
    None if there is no target.
    """
    splits: ClassVar[Sequence[int]] = ()
    """Valid values of the ``split`` option if several splits were published. ``--split all`` selects all published
    splits."""

    @abstractmethod
    def load(self, options: OptionsT) -> RawData:
        """Load the splits.

        Parameters
        ----------
        options : Options
            Instance of `Options`.

        Returns
        -------
        RawData
            The three splits. Calls with equal options must return equal arrays in the same order.

        Raises
        ------
        harness.DataError
            If the data are missing or damaged.

        Notes
        -----
        ``harness.installed(self)`` returns the folder that contains the `files`.
        """


class Task(ABC, Generic[OptionsT]):
    """A task, which defines preprocessing, objective, metrics and defaults for one kind of data.

    To create a task, subclass `Task`, set the class attributes and implement `prepare`. The type parameter of
    ``Task[MyOptions]`` is the type of the options that `prepare` and `augment` receive. Set `Options` to the same
    class.
    """

    name: ClassVar[str]
    """Name of the task, as passed to ``--task``."""
    kind: ClassVar[str]
    """Kind of raw input that the task accepts. The value is equal to the `Dataset.kind` of the task's datasets."""
    produces: ClassVar[str]
    """Kind of prepared input (`DataInfo.kind`). Models list the kinds that they support in `Model.accepts`."""
    objective: ClassVar[Objective]
    """Training objective."""
    summary: ClassVar[str]
    """One-line description."""
    default_dataset: ClassVar[str]
    """Name of the dataset used if the user does not select one."""
    default_model: ClassVar[str]
    """Name of the model used if the user does not select one."""
    models_by_size: ClassVar[Mapping[int, str]] = {}
    """Default models for the user's own data, keyed by the minimum number of training examples. For fewer examples, and
    for datasets that plugins provide, `default_model` is used. All backends that train in steps should implement these
    models."""
    metric: ClassVar[str]
    """Name of the primary metric."""
    metrics: ClassVar[Sequence[str]]
    """Names of all reported metrics, including the primary metric."""
    recipe: ClassVar[Recipe] = Recipe()
    """Default training recipe."""
    min_steps: ClassVar[int] = 300
    """Minimum number of optimizer steps for the user's own data. For small datasets, the number of epochs is increased
    until training has at least this number of steps. The number of epochs is not increased if the user sets the length
    of the training, if the recipe limits this length, or if the recipe changes the learning rate after given epochs."""
    Options: ClassVar[type[Struct]] = NoOptions
    """Struct that defines the task's options. Users set the fields with ``--set task.<field>=``."""
    reported: ClassVar[Sequence[str]] = ()
    """Names of the entries in `DataInfo.details` that are computed from the validation or test split and are used only
    in reports."""
    counts: ClassVar[str] = ""
    """Name of the unit for the example sizes returned by `count`, such as ``tokens``. The name consists of lowercase
    letters, digits and underscores. Reports also show the training and inference throughput in this unit, so the names
    ``samples`` and ``gflop`` are not allowed. The name is empty if throughput is reported only in samples."""

    @abstractmethod
    def prepare(self, data: RawData, options: OptionsT) -> PreparedData:
        """Convert raw data to numeric arrays.

        The result must be deterministic, and preprocessing steps must be fitted only on ``data.train``.

        Parameters
        ----------
        data : RawData
            Raw splits, whose arrays are read-only. The core has already checked that no split is empty, that inputs and
            groups have one entry per example, and that targets are valid. Valid targets are indices into
            ``data.label_names`` or, for regression, finite numbers ``[N, T]``.
        options : Options
            Instance of `Options`.

        Returns
        -------
        PreparedData
            Prepared splits. Each prepared split contains one prepared example for each raw example, in the same order.
        """

    def baseline(self, inputs: Mapping[str, Array], info: DataInfo) -> dict[str, Array]:
        """Return inputs that contain no information. ``harness explain`` uses them as the baseline for attributions.

        By default, floating-point inputs are 0, which is the mean of standardized inputs, and other inputs are not
        changed. Tasks whose inputs are token ids override this method to replace the ids.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Prepared inputs ``[B, ...]``, keyed by input name. The arrays are read-only.
        info : DataInfo
            Description of the prepared data.

        Returns
        -------
        dict of str to ndarray
            Arrays with the names, shapes and dtypes of `inputs`.
        """
        import numpy as np

        return {name: np.zeros_like(array) if array.dtype.kind == "f" else array for name, array in inputs.items()}

    def tokens(
        self, inputs: Mapping[str, Array], fitted: Mapping[str, Any], info: DataInfo
    ) -> Sequence[Sequence[str]] | None:
        """Return the text at each position of prepared examples, which ``harness explain`` shows with the attributions.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Prepared inputs ``[B, ...]``, keyed by input name. The arrays are read-only.
        fitted : mapping of str to Any
            `PreparedData.fitted` of the training data.
        info : DataInfo
            Description of the prepared data.

        Returns
        -------
        sequence of sequence of str or None
            The tokens of each example, without padding. None if the inputs are not sequences of tokens.
        """
        return None

    def count(self, split: Split, info: DataInfo) -> Array:
        """Return the size of each prepared example in the unit specified by `counts`, such as the number of tokens.

        The core calls this method if `counts` is set. Only real content is counted, not padding.

        Parameters
        ----------
        split : Split
            Prepared examples. The arrays are read-only.
        info : DataInfo
            Description of the prepared data.

        Returns
        -------
        ndarray of shape (N,)
            Non-negative integers or floats.
        """
        raise NotImplementedError(f"{type(self).__name__} sets counts, but does not implement the count method")

    def transform(
        self,
        inputs: Mapping[str, Array],
        details: Mapping[str, Any],
        fitted: Mapping[str, Any],
        info: DataInfo,
        options: OptionsT,
    ) -> dict[str, Array]:
        """Prepare the inputs of new examples with the preprocessing fitted by `prepare`.

        ``harness predict`` calls this method. By default, the method raises `harness.UnsupportedError`. For the inputs
        of the validation and test splits, the result must be bitwise identical to the inputs that `prepare` returned.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            Raw inputs ``[N, ...]``, keyed by input name, as in `RawData`. The arrays are read-only.
        details : mapping of str to Any
            Details of the new data, as in `RawData.details`.
        fitted : mapping of str to Any
            `PreparedData.fitted` of the training data, read from a JSON file.
        info : DataInfo
            `PreparedData.info` of the training data.
        options : Options
            Instance of `Options` with the values used in training.

        Returns
        -------
        dict of str to ndarray
            Prepared inputs, with the shapes and dtypes in ``info.inputs``.

        Raises
        ------
        harness.DataError
            If the inputs cannot be prepared.
        """
        from harness.errors import UnsupportedError

        raise UnsupportedError(
            f"the task {self.name!r} cannot prepare new data, because its plugin does not implement Task.transform"
        )

    def checkpoint_options(self, folder: Path) -> Mapping[str, Any]:
        """Return the task options that a pretrained checkpoint requires, such as its tokenizer.

        Parameters
        ----------
        folder : Path
            Folder that contains the checkpoint.

        Returns
        -------
        mapping of str to Any
            Values for fields of `Options`. If a value is equal to `folder`, the run's key contains the digest of the
            checkpoint instead of this path.
        """
        return {}

    def check_checkpoint(self, folder: Path, options: OptionsT) -> None:
        """Check that a pretrained checkpoint is compatible with a run's options. By default, do nothing.

        The core calls this method when it plans a run. An unsuitable checkpoint is therefore reported before any run
        starts, and in the same way for every backend.

        Parameters
        ----------
        folder : Path
            Folder that contains the checkpoint.
        options : Options
            Instance of `Options` with the values from `checkpoint_options` and the user's changes.

        Raises
        ------
        harness.UsageError
            If the checkpoint cannot be used with these options, for example because the tokenizer has more tokens than
            the checkpoint has embeddings.
        """

    def check_data(self, data: RawData, options: OptionsT) -> None:
        """Check that raw data can be prepared with a run's options. By default, do nothing.

        The core calls this method when it plans a run on the user's own table or text file. Unsuitable data are
        therefore reported before any run starts. The method should be fast, because it may be called several times.

        Parameters
        ----------
        data : RawData
            Raw splits, as in `prepare`.
        options : Options
            Instance of `Options`.

        Raises
        ------
        harness.DataError
            If the data cannot be prepared with these options, for example because numbers are missing.
        """

    def augment(
        self, inputs: dict[str, Array], info: DataInfo, options: OptionsT, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Augment the inputs of one training batch. The default implementation returns the inputs unchanged.

        The core calls this method before it passes the batch to a backend. Every backend therefore receives the same
        arrays. The time spent in this method counts as training time.

        Parameters
        ----------
        inputs : dict of str to ndarray
            Arrays ``[B, ...]``, keyed by input name. The arrays may be overwritten.
        info : DataInfo
            Description of the prepared data, including the details that `prepare` computed.
        options : Options
            Instance of `Options`.
        rng : numpy.random.Generator
            Generator seeded with the run's seed and the epoch. Do not use any other source of random numbers.

        Returns
        -------
        dict of str to ndarray
            Augmented inputs, with unchanged shapes and dtypes.
        """
        return inputs

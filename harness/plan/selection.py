"""The `Selection` class, which describes the requested runs, and the command-line option for each of its fields.

The command line, the keys of suites, the arguments of `harness.run`, and the commands that reproduce runs are derived
from the options in this module. To keep ``--help`` fast, the module does not import third-party libraries.
"""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.plan.exporter import ExportedRun
    from harness.records import Pretrained, RunSpec
    from harness.records.store import StoredRun


class Option(NamedTuple):
    """An option of a request. The option is available on the command line, in suites and in Python."""

    name: str
    """Key in a suite, argument of `harness.run`, and name of the command-line option without the prefix ``--``."""
    help: str
    """Help text of the option, without its default value."""
    default: str = ""
    """Description of the default value for the help text. If the description is empty, the help text does not mention a
    default."""
    argument: str = ""
    """Name of the argument of `harness.run`. The string is empty if the argument has the same name as the option."""
    kind: type[str | int | bool] = str
    """Type of a value."""
    least: int = 1
    """Smallest value allowed for an integer option."""
    several: bool = False
    """True if the option accepts several values."""
    every: str = ""
    """Keyword that selects all possible values, or an empty string if no keyword does."""
    choices: tuple[str, ...] = ()
    """Allowed values. The tuple is empty if there is no fixed list of values."""
    metavar: str | None = None
    """Placeholder for the value in the help text, or None for the default placeholder."""
    shared: bool = False
    """True if a suite can set the option once for all of its runs."""


class PlannedTeacher(NamedTuple):
    """Training run of a teacher in a suite. The teacher is trained before its students."""

    name: str
    """Name of the entry."""
    spec: RunSpec


def _option(name: str, help_text: str, **properties: Any) -> dict[str, Option]:
    return {"option": Option(name=name, help=help_text, **properties)}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A request to run all combinations of the selected values."""

    tasks: tuple[str, ...] = field(
        default=(), metadata=_option("task", "Task to run; see `harness list tasks`.", several=True)
    )
    datasets: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "dataset",
            "Dataset, or the path of a file or directory with your own data.",
            default="the task's default dataset",
            several=True,
            metavar="NAME[,NAME]|PATH",
        ),
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata=_option("model", "Model or model family.", default="the task's default model", several=True),
    )
    backends: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "backend",
            "Backend to train with.",
            default="available backends that implement the model",
            several=True,
            shared=True,
        ),
    )
    envs: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "env",
            "Environment in which the run is executed: current, or the name of an environment listed by "
            "`harness env list`.",
            default="current",
            several=True,
            shared=True,
        ),
    )
    """Names of environments. An empty tuple selects the environment of the command, which is named ``current``."""
    devices: tuple[str, ...] = field(
        default=("auto",),
        metadata=_option("device", "Device: auto, cpu, cuda or cuda:N.", default="auto", several=True, shared=True),
    )
    device_counts: tuple[int, ...] = field(
        default=(),
        metadata=_option(
            "devices",
            "Number of devices for training a model. One process is started for each device. A separate run is "
            "executed for each number.",
            default="1",
            kind=int,
            several=True,
            metavar="N[,N]",
            shared=True,
        ),
    )
    """Numbers of devices, or an empty tuple for one device."""
    precisions: tuple[str, ...] = field(
        default=("fp32",),
        metadata=_option(
            "precision",
            "Numeric precision: fp32, tf32, bf16, fp16, fp64 or, with --weights, int8.",
            default="fp32",
            several=True,
            shared=True,
        ),
    )
    seeds: tuple[int, ...] = field(
        default=(),
        metadata=_option(
            "seed",
            "Random seed. Each seed is used in a separate run.",
            default="0, or 0,1,2 with --protocol publish",
            kind=int,
            least=0,
            several=True,
            metavar="N[,N]",
            shared=True,
        ),
    )
    """Random seeds, or an empty tuple for the protocol's seeds."""
    threads: int | None = field(
        default=None,
        metadata=_option(
            "threads",
            "Number of CPU threads per process.",
            default="number of available cores, divided by the largest number of devices",
            kind=int,
            metavar="N",
            shared=True,
        ),
    )
    protocol: str = field(
        default="standard",
        metadata=_option(
            "protocol",
            "Measurement effort, which determines the duration and the required precision of the measurements. The "
            "publish protocol also sets 3 seeds and 5 repeats.",
            default="standard",
            choices=("quick", "standard", "publish"),
            shared=True,
        ),
    )
    pretrained: str | Pretrained | None = field(
        default=None,
        metadata=_option(
            "pretrained",
            "Start from a pretrained checkpoint (config.json, model.safetensors, tokenizer or preprocessor files).",
            metavar="DIR|HUB-ID",
        ),
    )
    """Directory or Hugging Face Hub ID of a checkpoint. `resolved` replaces this value with a `Pretrained` before
    planning."""
    weights: tuple[str | StoredRun | ExportedRun, ...] = field(
        default=(),
        hash=False,
        metadata=_option(
            "weights",
            "Measure inference (quality, speed, latency and memory) with the saved weights of these runs, without "
            "training. These runs determine the task, data and model. Folders written by `harness export` are also "
            "accepted.",
            several=True,
            metavar="RUN[,RUN]",
        ),
    )
    """Ids or paths of runs, or folders of exported models. `resolved` replaces these ids and paths with the stored runs
    before planning."""
    teacher: str | StoredRun | PlannedTeacher | None = field(
        default=None,
        hash=False,
        metadata=_option(
            "teacher",
            "Train with knowledge distillation, using the model of this run as the teacher. The run must have been "
            "trained on the same data and must have saved weights (--save-weights).",
            metavar="RUN",
        ),
    )
    """Id or path of a run. `resolved` replaces this id or path with the stored run before planning."""
    splits: tuple[int, ...] | Literal["all"] = field(
        default=(),
        metadata=_option(
            "split",
            "Number of a published split of the dataset, counted from 0, or of a fold or random split, counted from 1. "
            "Each split is used in a separate run.",
            default="the first published split; for folds and random splits, all of them",
            kind=int,
            least=0,
            several=True,
            every="all",
            metavar="all|N[,N]",
        ),
    )
    """Numbers of published splits, folds or random splits. An empty tuple selects the split given in the dataset
    options or, if none is given, all folds or random splits."""
    metric: str | None = field(
        default=None,
        metadata=_option(
            "metric",
            "Primary metric, used to choose the best epoch and to compare runs; see `harness list metrics`.",
            default="the task's primary metric",
            metavar="NAME",
            shared=True,
        ),
    )
    """Name of the primary metric, or None for the task's primary metric."""
    compile: bool = field(
        default=False, metadata=_option("compile", "Compile the model with the backend's compiler.", kind=bool)
    )
    deterministic: bool = field(
        default=False,
        metadata=_option(
            "deterministic", "Use only deterministic kernels, which produce bitwise identical results.", kind=bool
        ),
    )
    overrides: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "set",
            "Change a setting, such as recipe.epochs=3 or model.hidden_size=256. Several values, such as "
            "recipe.batch_size=16,32, result in separate runs. Can be repeated. If a setting is repeated, the last "
            "value applies.",
            argument="overrides",
            several=True,
            metavar="KEY=VALUE",
        ),
    )
    """Overrides in the form ``section.key=value``, with values in JSON or plain text."""
    repeat: int | None = field(
        default=None,
        metadata=_option(
            "repeat",
            "Number of repeats of each run. Repeats are interleaved. `harness compare` requires at least 3 repeats "
            "to compare speed.",
            default="1, or 5 with --protocol publish",
            kind=int,
            metavar="N",
            shared=True,
        ),
    )
    """Number of times to execute each run, or None for the protocol's default."""
    exclude: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Combinations to exclude. Each combination maps option names and settings, such as ``recipe.batch_size``, to
    values."""
    name: str = ""
    """Name by which other entries of a suite select this entry's run as their teacher. It may be empty."""
    located: Callable[[HarnessError], str] | None = field(default=None, compare=False, repr=False)
    """Function that returns the file and line of this selection for use in error messages. None if the selection was
    not read from a file."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Selection:
        """Return the selection for `values`, a mapping from option names to the values that the user passed.

        Options that accept several values also accept a single value. None and empty sequences select the default.
        Raises `harness.UsageError` if a value has the wrong type.
        """
        chosen: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            value = values.get(option.name)
            if value is None:
                continue
            if isinstance(value, str) and value == option.every:
                chosen[name] = value
            elif not option.several:
                chosen[name] = _checked(option, value)
            else:
                single = isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable)
                if several := tuple(_checked(option, each) for each in ([value] if single else value)):
                    chosen[name] = several
        return cls(**chosen)

    def changed(self) -> list[str]:
        """Return the names of the options that do not have their default values."""
        default = Selection()
        return [
            option.argument or option.name
            for name, option in OPTIONS.items()
            if getattr(self, name) != getattr(default, name)
        ]

    def several(self) -> list[str]:
        """Return the command-line options with several values, such as ``--precision`` or ``--set recipe.epochs``,
        except for the backend and the seed."""
        from harness.plan.overrides import combinations, override_path

        found = []
        for option, values in self.values():
            if option.name == "set":
                texts = [text for text in values if len(combinations([text])) > 1]
                found += [f"--set {override_path(text)}" for text in texts]
            elif len(values) > 1 and option.name not in ("backend", "seed"):
                found.append(f"--{option.name}")
        return found

    def values(self) -> Iterator[tuple[Option, tuple[Any, ...]]]:
        """Yield each option that is set, with a tuple of its values."""
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is not None and value is not False and value != ():
                yield option, value if isinstance(value, tuple) else (value,)

    def resolved(
        self, locate: Callable[[str], Pretrained], find: Callable[[str], StoredRun] | None = None
    ) -> Selection:
        """Return a copy of the selection in which the checkpoint, the teacher and the runs that provide weights have
        been resolved.

        `locate` is a function such as `harness.data.checkpoint.locate`. `locate` returns the checkpoint, and may
        download it. If the selection has no checkpoint, `locate` is not called. `find` is a function that returns a
        run, such as `harness.records.store.Store.find_trained`. Raises `harness.UsageError` if `find` is None and the
        selection uses other runs.
        """
        chosen = self
        if isinstance(chosen.teacher, str):
            if find is None:
                raise UsageError("--teacher cannot be used without a results directory; remove the option")
            chosen = dataclasses.replace(chosen, teacher=find(chosen.teacher))
        if any(isinstance(run, str) for run in self.weights):
            if find is None:
                raise UsageError("--weights cannot be used without a results directory; remove the option")
            from harness.plan.exporter import accepting_exports

            found = accepting_exports(find)
            runs = tuple(found(run) if isinstance(run, str) else run for run in self.weights)
            chosen = dataclasses.replace(chosen, weights=runs)
        if isinstance(chosen.pretrained, str):
            chosen = dataclasses.replace(chosen, pretrained=locate(chosen.pretrained))
        return chosen


OPTIONS: dict[str, Option] = {
    each.name: each.metadata["option"] for each in dataclasses.fields(Selection) if "option" in each.metadata
}
"""The options that correspond to fields of `Selection`. The options have the same order in help texts, generated
commands and suites.
"""


def _checked(option: Option, value: Any) -> str | int | bool:
    """Convert a value to the type of the option. Paths are converted to str, and the integer types of other libraries
    are converted to int."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if option.kind is int and not isinstance(value, bool) and hasattr(value, "__index__"):
        return operator.index(value)
    if not isinstance(value, option.kind) or (option.kind is int):
        kind = {str: "a string", int: "an integer", bool: "True or False"}[option.kind]
        raise UsageError(f"{option.argument or option.name} must be {kind}, got {value!r}")
    return value

"""`Selection`: what the user asks to run, and how each of its fields is written.

This module is the only list of these fields. Command-line options, suite keys, the arguments of `harness.run` and the
command that reproduces a run are derived from it. It imports the standard library only, since the help of a command
needs it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from harness.records import Pretrained


class Option(NamedTuple):
    """One setting as users write it."""

    name: str
    """Key in a suite and argument of `harness.run`; with ``--`` in front, option on the command line."""
    help: str
    argument: str = ""
    """Argument of `harness.run`, where it is not `name`."""
    kind: type[str | int | bool] = str
    """Type of one value. Integers start at 1, those of options that take several at 0."""
    several: bool = False
    every: str = ""
    """Word that stands for all possible values, where there is one."""
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    shared: bool = False
    """Whether a suite may set it once, for all its runs."""


def _option(name: str, help_text: str, **properties: Any) -> dict[str, Option]:
    return {"option": Option(name=name, help=help_text, **properties)}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the user asks to run; all combinations of the values are run."""

    tasks: tuple[str, ...] = field(
        default=(), metadata=_option("task", "Task; `harness list tasks` lists them.", several=True)
    )
    datasets: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "dataset",
            "Dataset, or the path of a file or folder with your own data [the task's default].",
            several=True,
            metavar="NAME[,NAME]|PATH",
        ),
    )
    models: tuple[str, ...] = field(
        default=(), metadata=_option("model", "Model or model family [the task's default].", several=True)
    )
    backends: tuple[str, ...] = field(
        default=(), metadata=_option("backend", "Framework [every one that can run here].", several=True, shared=True)
    )
    devices: tuple[str, ...] = field(
        default=("auto",),
        metadata=_option("device", "auto, cpu, cuda or cuda:N [auto].", several=True, shared=True),
    )
    precisions: tuple[str, ...] = field(
        default=("fp32",),
        metadata=_option("precision", "fp32, tf32, bf16, fp16 or fp64 [fp32].", several=True, shared=True),
    )
    seeds: tuple[int, ...] = field(
        default=(),
        metadata=_option(
            "seed",
            "Random seed; each one is a separate run [0; publish: 0,1,2].",
            kind=int,
            several=True,
            metavar="N[,N]",
            shared=True,
        ),
    )
    """Empty: those of the protocol."""
    threads: int | None = field(
        default=None,
        metadata=_option("threads", "CPU threads of a run [all available cores].", kind=int, metavar="N", shared=True),
    )
    protocol: str = field(
        default="standard",
        metadata=_option(
            "protocol",
            "Measurement effort: duration and required precision; publish also runs 3 seeds and 5 repeats [standard].",
            choices=("quick", "standard", "publish"),
            shared=True,
        ),
    )
    pretrained: str | Pretrained | None = field(
        default=None,
        metadata=_option(
            "pretrained",
            "Start from a pretrained checkpoint (config.json, model.safetensors, tokenizer or preprocessor files).",
            metavar="FOLDER|HUB-ID",
        ),
    )
    """A checkpoint's folder or hub id; planning needs the `Pretrained` that `resolved` puts in its place."""
    splits: tuple[int, ...] | Literal["all"] = field(
        default=(),
        metadata=_option(
            "split",
            "Published splits of the dataset, each a separate run [the first].",
            kind=int,
            several=True,
            every="all",
            metavar="all|N[,N]",
        ),
    )
    """Empty: the split that the dataset options name."""
    compile: bool = field(
        default=False, metadata=_option("compile", "Compile the model with the backend's compiler.", kind=bool)
    )
    deterministic: bool = field(
        default=False,
        metadata=_option("deterministic", "Use only kernels that give the same bits every time.", kind=bool),
    )
    overrides: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            "set",
            "Change a setting: recipe.epochs=3, model.hidden_size=256, protocol.window_s=1. May be repeated.",
            argument="overrides",
            several=True,
            metavar="KEY=VALUE",
        ),
    )
    """``section.key=value``, values in JSON or plain text."""
    repeat: int | None = field(
        default=None,
        metadata=_option(
            "repeat",
            "Do every run N times, interleaved; `harness compare` needs 3 or more for speed [1; publish: 5].",
            kind=int,
            metavar="N",
            shared=True,
        ),
    )
    """None: as often as the protocol says."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Selection:
        """Return the selection that `values` describe: option names with what the user gave for them.

        An option that takes several values takes a single one as well. None and empty sequences mean the default.
        """
        chosen: dict[str, Any] = {}
        for name, option in OPTIONS.items():
            value = values.get(option.name)
            if option.several and value is not None and value != (option.every or None):
                value = tuple(map(_plain, [value] if isinstance(value, str | int | os.PathLike) else value))
            if value is not None and value != ():
                chosen[name] = _plain(value)
        return cls(**chosen)

    def values(self) -> Iterator[tuple[Option, tuple[Any, ...]]]:
        """Yield each option that has a value, with its values as a tuple."""
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is not None and value is not False and value != ():
                yield option, value if isinstance(value, tuple) else (value,)

    def resolved(self, locate: Callable[[str], Pretrained]) -> Selection:
        """Return the selection with its checkpoint located by `locate`, such as `harness.data.checkpoint.locate`.

        `locate` may download. Where the selection names no checkpoint, it is not called.
        """
        if not isinstance(self.pretrained, str):
            return self
        return dataclasses.replace(self, pretrained=locate(self.pretrained))


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in dataclasses.fields(Selection)}
"""Field of `Selection` -> how it is written. The order is that of the help and of written commands and suites."""


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value

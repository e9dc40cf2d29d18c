"""A suite: several selections of runs in one TOML file, to be kept, shared and run again.

::

    protocol = "publish"      # for every run that says no other; so threads, seed, backend, device, precision, repeat

    [[run]]
    task = ["nlp", "vision"]
    backend = ["torch", "tensorflow"]

    [[run]]
    task = "regression"
    dataset = "uci-energy"
    split = "all"
    set = { "recipe.epochs" = 5 }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from harness.errors import UnknownNameError, UsageError
from harness.plan import Selection, expand, named_protocol
from harness.records import RunSpec

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog

Names = str | list[str]
Numbers = int | list[int]


class _Shared(Struct, kw_only=True, forbid_unknown_fields=True):
    """What all runs of a file may have in common."""

    backend: Names = []
    device: Names = "auto"
    precision: Names = "fp32"
    protocol: str = "standard"
    threads: int | None = None
    seed: Numbers = []
    repeat: int | None = None


class _Run(_Shared, kw_only=True, forbid_unknown_fields=True):
    task: Names
    dataset: Names = []
    model: Names = []
    pretrained: str | None = None
    split: Literal["all"] | Numbers = []
    compile: bool = False
    deterministic: bool = False
    set: dict[str, Any] = {}


@dataclass(frozen=True)
class Part:
    """One selection of a suite, and how often its runs are done."""

    selection: Selection
    repeats: int


def load(path: Path) -> list[Part]:
    """The selections of a suite's file, in its order. Raises `harness.UsageError`, naming the file and the fault."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is no TOML file: {error}") from None
    runs = content.pop("run", [])
    if not isinstance(runs, list) or not runs:
        raise UsageError(f"{path}: holds no runs; write each as a table [[run]] with a task")
    _known(path, "the file", content, _Shared)
    return [_part(path, number, {**content, **run}) for number, run in enumerate(runs, start=1)]


def plan(parts: list[Part], catalog: Catalog) -> tuple[RunSpec, ...]:
    """The runs of a suite, each as often as it is to be done; those of a part take turns.

    Raises `harness.UsageError`.
    """
    return tuple(spec for part in parts for spec in expand(part.selection, catalog) * part.repeats)


def _part(path: Path, number: int, values: Mapping[str, Any]) -> Part:
    _known(path, f"run {number}", values, _Run)
    try:
        run = msgspec.convert(dict(values), _Run)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}, run {number}: {error}") from None
    return Part(
        Selection(
            tasks=_several(run.task),
            backends=_several(run.backend),
            datasets=_several(run.dataset),
            models=_several(run.model),
            devices=_several(run.device),
            precisions=_several(run.precision),
            compile=run.compile,
            deterministic=run.deterministic,
            seeds=_several(run.seed),
            pretrained=run.pretrained,
            splits="all" if run.split == "all" else _several(run.split),
            threads=run.threads,
            protocol=run.protocol,
            overrides=tuple(f"{key}={msgspec.json.encode(value).decode()}" for key, value in run.set.items()),
        ),
        run.repeat or named_protocol(run.protocol).repeats,
    )


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _known(path: Path, where: str, values: Mapping[str, Any], kind: type[Struct]) -> None:
    for key in values:
        if key not in kind.__struct_fields__:
            raise UnknownNameError("key", key, kind.__struct_fields__, hint=f"(in {where} of {path})")

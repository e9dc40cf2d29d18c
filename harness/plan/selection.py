"""What a user asks for, and whether the names and numbers in it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from harness.errors import UnknownNameError, UsageError
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import PROTOCOLS, NamedProtocol, Precision

MAX_THREADS = 1024
"""Beyond it, libraries fail to start their pools."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a user asked for; empty tuples mean the defaults."""

    tasks: tuple[str, ...]
    backends: tuple[str, ...] = ()
    """Empty: every backend that can run here."""
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("fp32",)
    compile: bool = False
    deterministic: bool = False
    seeds: tuple[int, ...] = ()
    """Empty: those of the protocol."""
    protocol: str = "standard"
    """Which of `harness.records.PROTOCOLS` says how speed is measured."""
    pretrained: str | None = None
    """A checkpoint's folder or hub id."""
    splits: tuple[int, ...] | Literal["all"] = ()
    """Of the datasets' published splits, a run each; empty: the one that the dataset options say."""
    threads: int | None = None
    """None: every core that this process may use."""
    overrides: tuple[str, ...] = field(default=())
    """``section.key=value``, values in JSON or plain text."""


def named_protocol(name: str) -> NamedProtocol:
    """Raises `harness.UnknownNameError`."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def chosen_backends(selection: Selection, catalog: Catalog) -> list[str]:
    if selection.backends:
        for name in selection.backends:
            reason = missing(catalog.backend(name).requires)
            if reason:
                raise UsageError(f"backend {name!r} is not available here: {reason}")
        return list(dict.fromkeys(selection.backends))
    reasons = {name: missing(provided.value.requires) for name, provided in catalog.backends.items()}
    usable = [name for name, reason in reasons.items() if reason is None]
    if not usable:
        told = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise UsageError(f"no backend can run here{told or '; none is installed'}")
    return usable


def known_precision(name: str) -> Precision:
    try:
        precision: Precision = msgspec.convert(name, Precision)
    except msgspec.ValidationError:
        raise UnknownNameError("precision", name, ("fp32", "tf32", "bf16", "fp16", "fp64")) from None
    return precision


def check_device(name: str) -> None:
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cuda" or not number.isdigit())):
        raise UnknownNameError("device", name, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))

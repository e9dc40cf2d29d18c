"""The plan that ``harness run --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.output import counted, echo

if TYPE_CHECKING:
    from harness.execute.estimate import Estimate
    from harness.execute.resume import Decision
    from harness.records import RunSpec

_NAMES = ("task", "dataset", "model", "backend", "device", "precision", "compile", "threads")
_OWN_COLUMNS = ("recipe.epochs", "recipe.batch_size", *_NAMES, "seed")


def print_plan(decisions: Sequence[Decision], estimates: Sequence[Estimate | None]) -> None:
    """Print the planned runs in their order, with the settings that vary, their state, and the expected cost of those
    that would be executed."""
    from tabulate import tabulate

    from harness.analysis.differences import varying
    from harness.cli.progress import clock

    specs = [decision.spec for decision in decisions]
    other = [name for name in varying(specs) if name not in _OWN_COLUMNS]
    split = ["split"] if any(spec.split is not None for spec in specs) else []
    headers = [*_NAMES, *split, "seed", "epochs", "batch", *other, "key", "time", "state"]
    rows = []
    for decision, estimate in zip(decisions, estimates, strict=True):
        spec = decision.spec
        time = clock(estimate.seconds) if estimate and decision.stored is None else ""
        rows.append(
            [
                *(getattr(spec, name) for name in (*_NAMES, *split, "seed")),
                spec.recipe.epochs,
                spec.recipe.batch_size,
                *_values(spec, other),
                spec.key[:8],
                time,
                "skip" if decision.stored else "redo" if decision.reason else "run",
            ]
        )
    # Show these columns as text, even if a value looks like a number, such as the key 084e0232.
    texts = [headers.index(name) for name in ("dataset", *other, "key", "time")]
    echo(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=texts))
    skipped = sum(decision.stored is not None for decision in decisions)
    done = f", {skipped} of them already done" if skipped else ""
    echo(f"\n{counted(len(specs), 'run')} planned{done}; none was started")
    left = [each for each, decision in zip(estimates, decisions, strict=True) if decision.stored is None]
    if known := [estimate for estimate in left if estimate]:
        seconds, size = sum(e.seconds for e in known), sum(e.disk_bytes for e in known)
        rest = f", without {counted(len(left) - len(known), 'run')} of unknown duration" * (len(known) < len(left))
        echo(f"about {clock(seconds)} and {size / 1e6:.1f} MB, estimated from similar runs{rest}")


def _values(spec: RunSpec, names: Sequence[str]) -> list[str]:
    from harness.analysis.differences import absent, settings_of

    settings = settings_of(spec)
    return [settings.get(name, absent(name)) for name in names]

"""Formatting of verdicts, with one line per stage followed by an explanation of the first failure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.parity.verdict import ParityVerdict


def title(verdict: ParityVerdict) -> str:
    """Return a title line containing the backends and the settings."""
    spec = verdict.spec
    parts = [spec.task, spec.model, f"{verdict.backends[0]} against {verdict.backends[1]}", spec.precision]
    parts.append(" and ".join(dict.fromkeys(verdict.devices)))
    parts += ["compile"] * spec.compile + ["deterministic"] * spec.deterministic
    return " · ".join([*parts, spec.recipe.optimizer])


def render(verdict: ParityVerdict) -> str:
    """Format the verdict for display in a terminal."""
    from tabulate import tabulate

    header = ["stage", "", "error", "allowed", *(f"{b} to float64" for b in verdict.backends), "largest at"]
    rows = [
        [
            stage.name,
            "ok" if stage.passed else "FAILED",
            number(stage.error),
            f"{stage.tolerance:.0e}" if stage.tolerance else "exact",
            *(number(stage.from_reference.get(b)) if stage.from_reference else "" for b in verdict.backends),
            stage.where,
        ]
        for stage in verdict.stages
    ]
    lines = [title(verdict)]
    if rows:
        lines.append(tabulate(rows, headers=header, tablefmt="plain", disable_numparse=True))
    lines += [f"{stage.name}: {stage.remark}" for stage in verdict.stages if stage.remark]
    if verdict.reference is None and rows:
        lines.append("no float64 reference: no installed backend supports fp64 on the CPU")
    outcome = {
        "same": "same",
        "partly checked": f"partly checked: {verdict.partly}",
        "differs": f"DIFFERS: {verdict.explanation}",
    }[verdict.state]
    return "\n".join([*lines, f"{outcome} ({verdict.wall_s:.0f} s)"])


def summary(verdicts: Sequence[ParityVerdict]) -> str:
    """Return a Markdown table with one row per verdict and one column per stage. Remarks on the curves follow the
    table."""
    from tabulate import tabulate

    names = list(dict.fromkeys(stage.name for verdict in verdicts for stage in verdict.stages))
    names = [name for name in names if name not in ("inputs", "weights")]
    rows = []
    for verdict in verdicts:
        errors = {stage.name: number(stage.error) + ("" if stage.passed else " !") for stage in verdict.stages}
        rows.append(
            [
                verdict.spec.task,
                verdict.spec.model,
                verdict.spec.recipe.optimizer,
                " / ".join(verdict.backends),
                *(errors.get(name, "") for name in names),
                verdict.state,
            ]
        )
    header = ["task", "model", "optimizer", "backends", *names, "verdict"]
    remarks = [
        f"{verdict.spec.task}, {verdict.spec.model}, {verdict.spec.recipe.optimizer}: {stage.name}: {stage.remark}"
        for verdict in verdicts
        for stage in verdict.stages
        if stage.name == "curve" and stage.remark
    ]
    table = tabulate(rows, headers=header, tablefmt="pipe", disable_numparse=True)
    return "\n\n".join([table, *remarks])


def number(error: float | None) -> str:
    """Format an error with two digits; ``0`` means bitwise equality."""
    if error is None:
        return "not finite"
    return f"{error:.1e}" if error else "0"

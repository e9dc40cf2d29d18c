"""A parity check from the parent's side: gather evidence in child processes, compare, explain."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from harness.checks.parity.evidence import ParityJob, compute_evidence
from harness.checks.parity.report import ARRAYS, ParityReport
from harness.checks.parity.verdict import STEPS, ParityVerdict, Stage, keep, side_of_report, subject, verdict_key
from harness.errors import UsageError
from harness.execute.child import call_in_child
from harness.execute.runner import child_environment
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Failure, ParityMark, RunSpec
from harness.records.store import Store

TIMEOUT_S = 1800.0
ROUNDINGS = 6
"""Draws of the weights' last bits. What float32 rounding may decide is decided otherwise by about half of them: that
all six miss it has a chance of 1 in 64."""


def _silent(text: str) -> None:
    pass


def pairs(specs: Iterable[RunSpec]) -> list[tuple[RunSpec, RunSpec]]:
    """Specs that differ in their backend only, each with the first of its kind; seeds need no check of their own.

    Raises `harness.UsageError` where nothing can be compared.
    """
    groups: dict[str, dict[str, RunSpec]] = {}
    for spec in specs:
        groups.setdefault(_kind(spec), {}).setdefault(spec.backend, spec)
    found = [(first, other) for group in groups.values() for first, *others in [group.values()] for other in others]
    if not found:
        raise UsageError(
            "a parity check needs two backends that have the model; name them as --backend A,B (where each runs a "
            "model of its own, there is nothing to compare)"
        )
    return found


def _kind(spec: RunSpec) -> str:
    """What specs share that one check covers."""
    recipe = msgspec.structs.replace(spec.recipe, epochs=1)
    return msgspec.structs.replace(spec, backend="", seed=0, recipe=recipe).key


def marks_for(
    specs: Sequence[RunSpec], catalog: Catalog, store: Store, *, say: Callable[[str], None] = _silent
) -> dict[str, list[ParityMark]]:
    """Check what `specs` compare, and keep the verdicts in `store`: key of each spec -> marks for its record.

    Raises `harness.UsageError` where nothing can be compared.
    """
    marks: dict[str, list[ParityMark]] = {spec.key: [] for spec in specs}
    for one, other in pairs(specs):
        verdict = check(one, other, catalog, say=say)
        if verdict.key:
            keep(verdict, store.path)
        for spec in specs:
            if _kind(spec) == _kind(one) and spec.backend in verdict.backends:
                peer = next(name for name in verdict.backends if name != spec.backend)
                marks[spec.key].append(verdict.mark(peer))
    return marks


def check(
    one: RunSpec,
    other: RunSpec,
    catalog: Catalog,
    *,
    steps: int = STEPS,
    timeout_s: float = TIMEOUT_S,
    say: Callable[[str], None] = _silent,
) -> ParityVerdict:
    """Compare two backends, each in a process of its own, and both with a float64 reference where a backend has it.

    Where they differ after the backward pass only, the reference is computed again to see what rounding can do there.

    A backend never raises here: if it cannot compute its evidence, the verdict is not passed.
    """
    from harness.checks.parity.stages import BACKWARD

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-parity-") as directory:
        gathered = {}
        for spec in (one, other):
            say(f"{spec.backend} in {spec.precision}")
            gathered[spec.backend] = gather(spec, catalog, Path(directory) / spec.backend, steps, timeout_s)
        reports = {name: g.report for name, g in gathered.items() if g.report is not None}
        reference = None
        if len(reports) == 2:
            reference = _reference(reports, catalog, Path(directory), steps, timeout_s, say)
        verdict = _judge(one, other, gathered, reference, catalog, steps, start)
        failed = {stage.name for stage in verdict.stages if not stage.passed}
        if reference and reference.report and failed and failed <= set(BACKWARD):
            say(f"{reference.report.spec.backend} in fp64, from weights with other last bits")
            spec = reference.report.spec
            moved = gather(spec, catalog, Path(directory) / "roundings", steps, timeout_s, roundings=ROUNDINGS)
            if moved.report is not None:
                verdict = _judge(one, other, gathered, moved, catalog, steps, start)
        return verdict


class Gathered(msgspec.Struct, frozen=True):
    directory: Path
    report: ParityReport | None
    failure: Failure | None


def gather(
    spec: RunSpec, catalog: Catalog, directory: Path, steps: int, timeout_s: float = TIMEOUT_S, *, roundings: int = 0
) -> Gathered:
    """One backend's evidence, in `directory`."""
    directory.mkdir()
    returned = call_in_child(
        compute_evidence,
        ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=steps, roundings=roundings),
        timeout_s=timeout_s,
        environment=child_environment(spec),
        directory=directory,
    )
    if isinstance(returned, Failure):
        return Gathered(directory, None, returned)
    return Gathered(directory, returned, None)


def _reference(
    reports: Mapping[str, ParityReport],
    catalog: Catalog,
    directory: Path,
    steps: int,
    timeout_s: float,
    say: Callable[[str], None],
) -> Gathered | None:
    """The same computation in float64 on the CPU, by the first of the backends that has it; else by another that is
    installed."""
    first = next(iter(reports.values()))
    family = catalog.model(first.spec.model)[0].name
    able = [name for name, report in reports.items() if "fp64" in report.cpu_precisions]
    able += [
        name
        for name, provided in catalog.backends.items()
        if name not in reports and catalog.network(family, name) and missing(provided.value.requires) is None
    ]
    for name in able:
        spec = msgspec.structs.replace(first.spec, backend=name, device="cpu", precision="fp64", compile=False)
        say(f"{name} in fp64, the reference")
        gathered = gather(spec, catalog, directory / f"reference-{name}", steps, timeout_s)
        if gathered.report is not None:
            return gathered
    return None


def _judge(
    one: RunSpec,
    other: RunSpec,
    gathered: Mapping[str, Gathered],
    reference: Gathered | None,
    catalog: Catalog,
    steps: int,
    start: float,
) -> ParityVerdict:
    import numpy as np

    from harness.checks.parity.explain import explain
    from harness.checks.parity.stages import Evidence, compare

    failed = next(((name, g) for name, g in gathered.items() if g.report is None), None)
    reports = {name: g.report for name, g in gathered.items() if g.report is not None}
    stages: list[Stage] = []
    sides: tuple[str, ...] = ()
    explanation = about = ""
    if failed is not None and failed[1].failure is not None:
        explanation = f"{failed[0]} could not be checked: {failed[1].failure.kind}: {failed[1].failure.message}"
    else:
        sources = [*gathered.values(), *([reference] if reference else [])]
        opened = [Evidence(g.report, np.load(g.directory / ARRAYS)) for g in sources if g.report is not None]
        stages = compare(opened[0], opened[1], opened[2] if reference else None)
        explanation = explain(stages, opened[0], opened[1])
        about = subject(opened[0].report.spec, opened[0].report.data)
        sides = tuple(side_of_report(reports[spec.backend], catalog.refs_for(spec)) for spec in (one, other))
    parameters = next((r.parameters for r in reports.values()), {})
    statistics = {name for r in reports.values() for name in r.statistics}
    return ParityVerdict(
        key=verdict_key(about, sides) if sides else "",
        subject=about,
        sides=sides,
        checked_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - start,
        spec=reports[one.backend].spec if one.backend in reports else one,
        backends=(one.backend, other.backend),
        devices=tuple(reports[s.backend].spec.device if s.backend in reports else s.device for s in (one, other)),  # type: ignore[arg-type]
        reference=reference.report.spec.backend if reference and reference.report else None,
        steps=steps,
        parameters=sum(int(np.prod(shape)) for name, shape in parameters.items() if name not in statistics),
        passed=bool(stages) and all(stage.passed for stage in stages),
        stages=stages,
        explanation=explanation,
        failure=failed[1].failure if failed else None,
        packages={name: report.packages for name, report in reports.items()},
        notes={name: report.notes for name, report in reports.items()},
    )

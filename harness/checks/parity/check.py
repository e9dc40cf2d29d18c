"""The parent process of a parity check, which runs the computations of both backends in child processes and compares
the results."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.checks.parity.children import Gathered, Sent, gather, gather_both, gather_roundings, stage_lines
from harness.checks.parity.evidence import LATE, ParityJob
from harness.checks.parity.report import ARRAYS, STEPS, ParityReport
from harness.checks.parity.verdict import ParityVerdict, Stage, keep, side_of_report, subject, verdict_key
from harness.errors import UsageError
from harness.execute.teacher import provide_logits
from harness.plan.devices import threads_per_process
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.plugins.environments import missing
from harness.records import ParityMark, RunSpec
from harness.records.recipe import without_loop_fields
from harness.records.store import Store

TIMEOUT_S = 1800.0
"""Default time limit for each backend, in seconds."""
ROUNDINGS = 6
"""Number of random perturbations of the weights' last bits. If a result depends on float32 rounding, such as the sign
of a ReLU's input, each perturbation changes it with a probability of about 1/2. The probability that none of six
perturbations changes the result is about 1/64."""


def _silent(text: str) -> None:
    pass


def specs_to_check(selection: Selection, catalog: Catalog) -> tuple[RunSpec, ...]:
    """Return the specs of a selection for use in a parity check.

    By default, the number of threads per backend is half the number of available cores, but at least one, so that two
    backends can compute at the same time. Raises the same errors as `harness.plan.expand.expand`.
    """
    return expand(dataclasses.replace(selection, threads=threads_per_process(selection, jobs=2)), catalog)


def pairs(specs: Iterable[RunSpec]) -> list[tuple[RunSpec, RunSpec]]:
    """Return pairs of specs that differ only in the backend, the environment or the seed.

    The first spec in each group is paired with every other spec in the group. Raises `harness.UsageError` if there are
    no pairs.
    """
    groups: dict[str, dict[str, RunSpec]] = {}
    for spec in specs:
        groups.setdefault(_kind(spec), {}).setdefault(spec.backend_in_env, spec)
    result = [(first, other) for group in groups.values() for first, *others in [group.values()] for other in others]
    if not result:
        raise UsageError(
            "a parity check needs two backends that implement the same model, or one backend in two environments; "
            "select them with --backend A,B or --env A,B"
        )
    return result


def _kind(spec: RunSpec) -> str:
    """Return a key that is the same for all specs covered by one check."""
    recipe = without_loop_fields(spec.recipe)
    return msgspec.structs.replace(spec, backend="", env="", seed=0, devices=1, threads=1, recipe=recipe).key


def compared(specs: Sequence[RunSpec]) -> set[str]:
    """Return the keys of the specs that `marks_for` compares with another backend."""
    involved = {(_kind(spec), spec.backend_in_env) for pair in pairs(specs) for spec in pair}
    return {spec.key for spec in specs if (_kind(spec), spec.backend_in_env) in involved}


def marks_for(
    specs: Sequence[RunSpec], catalog: Catalog, store: Store, *, say: Callable[[str], None] = _silent
) -> dict[str, list[ParityMark]]:
    """Check the pairs among `specs` and save the verdicts in `store`. Return the parity results to record for each
    spec, keyed by the spec's key.

    Each backend uses the same number of threads as its runs, but at most half of the available cores, so that both
    backends can compute at the same time. The verdict does not depend on the number of threads.

    Raises `harness.UsageError` if `specs` contains no pair to compare.
    """
    marks: dict[str, list[ParityMark]] = {spec.key: [] for spec in specs}
    most = threads_per_process(Selection(), jobs=2)
    for pair in pairs(specs):
        one, other = (msgspec.structs.replace(spec, threads=min(spec.threads, most)) for spec in pair)
        verdict = check(one, other, catalog, say=say)
        if verdict.key:
            keep(verdict, store.path)
        for spec in specs:
            if _kind(spec) == _kind(one) and spec.backend_in_env in verdict.backends:
                peer = next(name for name in verdict.backends if name != spec.backend_in_env)
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
    """Compare two backends with each other and, if an installed backend supports float64, with a reference in float64.

    The backends use a single device, even if the specs request several devices. Each backend runs in a separate
    process. If the backends differ only after the backward pass, the reference is recomputed with perturbed weights to
    measure the effect of rounding. If a backend fails, no exception is raised. Instead, the check does not pass, and
    its verdict describes the failure.
    """
    from harness.checks.parity.stages import BACKWARD

    start = time.monotonic()
    provide_logits((one, other), catalog, say=say)
    one, other = (msgspec.structs.replace(spec, devices=1) for spec in (one, other))
    with tempfile.TemporaryDirectory(prefix="harness-parity-") as temporary:
        directory = Path(temporary)
        jobs = [ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=steps) for spec in (one, other)]
        gathered = gather_both(jobs[0], jobs[1], directory, timeout_s, say=say)
        reports = {name: g.report for name, g in gathered.items() if g.report is not None}
        late = str(gathered[one.backend_in_env].directory / LATE)
        reference = None
        if len(reports) == 2:
            reference = _reference(reports, catalog, directory, steps, timeout_s, late, say)
        verdict = _verdict(one, other, gathered, reference, catalog, steps, start)
        failed = {stage.name for stage in verdict.stages if not stage.passed}
        if reference and reference.report and failed and failed <= set(BACKWARD):
            title = f"{reference.report.spec.backend_in_env} in fp64"
            say(f"{title}, with the last bits of the weights perturbed")
            spec = reference.report.spec
            job = ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=steps, reference=True, late=late)
            perturbed = gather_roundings(job, range(1, ROUNDINGS + 1), directory, timeout_s, stage_lines(title, say))
            if perturbed:
                verdict = _verdict(one, other, gathered, reference, catalog, steps, start, perturbed)
        return verdict


def _reference(
    reports: Mapping[str, ParityReport],
    catalog: Catalog,
    directory: Path,
    steps: int,
    timeout_s: float,
    late: str,
    say: Callable[[str], None],
) -> Gathered | None:
    """Repeat the computation in float64 on the CPU, using the first backend that supports float64.

    The two backends being compared are tried before other installed backends.
    """
    first = next(iter(reports.values()))
    family = catalog.model(first.spec.model)[0].name
    compared = [report.spec for report in reports.values()]
    able = [(each.spec.backend, each.spec.env) for each in reports.values() if "fp64" in each.cpu_precisions]
    able += [
        (name, env)
        for name, provided in catalog.backends.items()
        for env in dict.fromkeys(spec.env for spec in compared)
        if name not in {spec.backend for spec in compared}
        and catalog.network(family, name)
        and missing(provided.value.requires, env) is None
    ]
    for number, (name, env) in enumerate(able):
        spec = msgspec.structs.replace(first.spec, backend=name, env=env, device="cpu", precision="fp64", compile=False)
        say(f"{spec.backend_in_env} in fp64, the reference")
        job = ParityJob(spec=spec, plugins=catalog.refs_for(spec), steps=steps, reference=True, late=late)
        show = stage_lines(f"{spec.backend_in_env} in fp64", say)
        gathered = gather(job, directory / f"reference-{number}", timeout_s, event_type=Sent, on_event=show)
        if gathered.report is not None:
            return gathered
    return None


def _verdict(
    one: RunSpec,
    other: RunSpec,
    gathered: Mapping[str, Gathered],
    reference: Gathered | None,
    catalog: Catalog,
    steps: int,
    start: float,
    perturbed: Sequence[Path] = (),
) -> ParityVerdict:
    """Compare the results of both backends and return the verdict.

    `perturbed` contains the directories with the results that the reference computed from perturbed weights.
    """
    import numpy as np

    from harness.checks.parity.explain import explain
    from harness.checks.parity.report import Evidence
    from harness.checks.parity.stages import compare

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
        if perturbed:
            archives: list[Any] = [opened[2].arrays, *(np.load(folder / ARRAYS) for folder in perturbed)]
            opened[2] = Evidence(opened[2].report, ChainMap(*archives))
        stages = compare(opened[0], opened[1], opened[2] if reference else None)
        explanation = explain(stages, opened[0], opened[1])
        about = subject(opened[0].report.spec, opened[0].report.data)
        sides = tuple(side_of_report(reports[spec.backend_in_env], catalog.refs_for(spec)) for spec in (one, other))
    parameters = next((r.parameters for r in reports.values()), {})
    statistics = {name for r in reports.values() for name in r.statistics}
    return ParityVerdict(
        key=verdict_key(about, sides) if sides else "",
        subject=about,
        sides=sides,
        checked_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - start,
        spec=reports[one.backend_in_env].spec if one.backend_in_env in reports else one,
        backends=(one.backend_in_env, other.backend_in_env),
        devices=(_device(one, reports), _device(other, reports)),
        reference=reference.report.spec.backend_in_env if reference and reference.report else None,
        steps=steps,
        parameters=sum(int(np.prod(shape)) for name, shape in parameters.items() if name not in statistics),
        passed=bool(stages) and all(stage.passed for stage in stages),
        stages=stages,
        explanation=explanation,
        failure=failed[1].failure if failed else None,
        packages={name: report.packages for name, report in reports.items()},
        notes={name: report.notes for name, report in reports.items()},
    )


def _device(spec: RunSpec, reports: Mapping[str, ParityReport]) -> str:
    """Return the device on which a backend was checked, or the requested device if the backend failed."""
    return reports[spec.backend_in_env].spec.device if spec.backend_in_env in reports else spec.device

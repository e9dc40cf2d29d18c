"""Checks against other files: parity verdicts and the machine's roofline."""

from __future__ import annotations

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import differences
from harness.checks.parity.verdict import side_of_record
from harness.checks.parity.verdict import subject as subject_of
from harness.measure.roofline import hardware_of

FASTER = 2.0
"""Maximum ratio of a run's FLOP/s to the roofline. The limit exceeds 1 because the roofline may have been measured at a
lower clock frequency."""


def _parity(subject: Subject) -> Result:
    record = subject.record
    if not record.parity:
        raise NotCheckedError("no parity check was requested for this run")
    problems, absent = [], []
    for number, mark in enumerate(record.parity):
        verdict = subject.verdicts.get(mark.verdict)
        if mark in record.parity[:number] or mark.backend == record.spec.backend_in_env:
            problems.append(f"the parity result for {mark.backend} refers to the run's own backend, or is listed twice")
        elif verdict is None:
            absent.append(f"the verdict {mark.verdict[:8]} is not in the results directory")
        elif verdict.checked_at > record.started_at:
            absent.append(f"the verdict {mark.verdict[:8]} was replaced by a later check")
        else:
            problems += differences(mark, verdict.mark(mark.backend), "mark")
            if set(verdict.backends) != {record.spec.backend_in_env, mark.backend}:
                problems.append(f"the verdict compares {' and '.join(verdict.backends)}")
            if side_of_record(record) not in verdict.sides:
                problems.append("the verdict applies to another version of the backend")
            data = record.provenance.data
            if data is not None and verdict.subject != subject_of(record.spec, data):
                problems.append("the verdict applies to different data or settings")
    if absent and not problems:
        raise NotCheckedError("; ".join(absent))
    return Result(problems, f"{len(record.parity)} verdicts")


def _roofline(subject: Subject) -> Result:
    record, spec, roofline = subject.record, subject.spec, subject.record.roofline
    if roofline is None:
        raise NotCheckedError("the record has no roofline")
    recorded = (roofline.backend, roofline.device, roofline.precision, roofline.threads, roofline.hardware)
    hardware = hardware_of(record.environment, spec.device, record.provenance.device_name or "")
    expected = (spec.backend, spec.device, spec.precision, spec.threads, hardware)
    packages = record.environment.packages
    known = {name: version for name, version in packages.items() if name in roofline.versions}
    problems = differences(list(recorded), list(expected), "roofline")
    problems += differences(roofline.versions, known, "versions")
    backend = subject.catalog.backends.get(spec.backend)
    if backend is not None:
        named = {name for name in backend.value.packages if name in packages}
        problems += [f"the version of {name} is missing" for name in sorted(named - set(roofline.versions))]
    if roofline.matrix_flops_per_s <= 0 or roofline.copy_bytes_per_s <= 0:
        problems.append("the rates are not positive")
    for name, rate in _flop_rates(subject):
        if rate > FASTER * roofline.matrix_flops_per_s:
            problems.append(
                f"{name} reached {rate:.3g} FLOP/s, but the roofline is {roofline.matrix_flops_per_s:.3g} FLOP/s"
            )
    return Result(problems, f"{roofline.matrix_flops_per_s:.3g} FLOP/s on {roofline.hardware}")


def _flop_rates(subject: Subject) -> list[tuple[str, float]]:
    speed, flops = subject.outcome.speed, subject.outcome.model.flops_per_sample
    inference = None if speed.inference_samples_per_s is None else speed.inference_samples_per_s * flops
    rates = {"inference": inference, "training": speed.train_flops_per_s}
    return [(name, rate) for name, rate in rates.items() if rate is not None]


CHECKS = (
    Check("recorded parity results match the stored verdicts", ("parity",), _parity),
    Check("the roofline was measured on the device of the run", ("peak",), _roofline),
)

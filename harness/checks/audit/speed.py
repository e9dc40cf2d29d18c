"""Checks of speed, which recompute throughputs, flags and latency percentiles from the raw samples."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.checks.audit.compare import differences
from harness.checks.audit.training import batch_size, steps_per_epoch
from harness.checks.parity.tolerances import tolerance
from harness.measure.summary import interruptions, latency, no_speed
from harness.records import Energy
from harness.records.samples import first_windows, inference_windows, train_windows

if TYPE_CHECKING:
    from harness.measure.steady import Window

CLOCK_FRACTION, CLOCK_S = 0.01, 0.05
"""Allowed difference between the step timer and the wall clock: a fraction of the duration plus a number of seconds.
The operating system may adjust the wall clock in small steps, for example to synchronize with an NTP server."""
FROM_WINDOWS = ("wide", "drift", "bimodal")
"""Kinds of flags that can be recomputed from the windows. Other kinds of flags depend on the machine's counters."""
UNTIMED_FRACTION, UNTIMED_S, UNTIMED_WINDOW_S = 0.1, 0.1, 0.05
"""Maximum untimed part of a measurement loop: a fraction of the timed part, plus a number of seconds, plus a number of
seconds per window. The time limit of a loop includes the time between its windows."""


def recipe_windows(subject: Subject) -> list[Window]:
    """Return the windows of the recipe's steps, excluding the first step of each process. The list is empty if the run
    did not train."""
    if subject.spec.weights is not None:
        return []
    first = first_windows(subject.record, subject.samples)
    windows = _windows(subject, "train_window_steps", "train_window_s")
    return [window for index, window in enumerate(windows) if index not in first]


def sampled_windows(subject: Subject) -> list[Window]:
    """Return the training windows that followed the recipe's steps and were run only to measure speed."""
    if subject.spec.weights is not None:
        return []
    return _windows(subject, "sampling_window_steps", "sampling_window_s")


def timed_windows(subject: Subject) -> list[Window]:
    """Return the inference windows."""
    return _windows(subject, "inference_window_batches", "inference_window_s")


def _windows(subject: Subject, counts: str, seconds: str) -> list[Window]:
    from harness.measure.steady import Window

    arrays = subject.samples
    return [Window(*pair) for pair in zip(arrays[counts].tolist(), arrays[seconds].tolist(), strict=True)]


def _inference_batch(subject: Subject) -> int:
    return min(subject.spec.recipe.batch_size, subject.outcome.examples["test"])


def _speed(subject: Subject) -> Result:
    from harness.measure.steady import Window, summary

    speed, protocol = subject.outcome.speed, subject.spec.protocol
    if subject.record.quality_only:
        expected = no_speed(by_steps=bool(speed.by_steps))
        problems = differences(msgspec.structs.replace(speed, by_steps=expected.by_steps), expected, "speed")
        return Result(problems, "not measured")
    problems, train, inference = [], list[Window](), timed_windows(subject)
    if subject.spec.weights is None:
        first_step_s = subject.samples["train_window_s"][0].item()
        problems = differences(speed.first_step_s, first_step_s, "first_step_s")
        if subject.migrated_from == 1:
            return _speed_of_version_1(subject, problems)
        train = [*recipe_windows(subject), *sampled_windows(subject)]
        rate, steady = summary(train, batch_size(subject), protocol)
        problems += differences(speed.train_samples_per_s, rate, "train_samples_per_s")
        problems += differences(speed.train, steady, "train")
    rate, steady = summary(inference, _inference_batch(subject), protocol)
    problems += differences(speed.inference_samples_per_s, rate, "inference_samples_per_s")
    problems += differences(speed.inference, steady, "inference")
    return Result(problems, f"{len(train)} training windows, {len(inference)} inference windows")


def _speed_of_version_1(subject: Subject, problems: list[str]) -> Result:
    """Compare the throughputs with the medians over the windows, because records of version 1 do not describe the
    steady state."""
    import numpy as np

    speed = subject.outcome.speed
    train, inference = (
        train_windows(subject.record, subject.samples),
        inference_windows(subject.record, subject.samples),
    )
    for name, recorded, windows in (
        ("train_samples_per_s", speed.train_samples_per_s, train),
        ("inference_samples_per_s", speed.inference_samples_per_s, inference),
    ):
        if windows is not None:
            problems += differences(recorded, float(np.median(windows.samples_per_s[windows.steady_from :])), name)
    return Result(problems, "throughputs of schema version 1")


def _flops(subject: Subject) -> Result:
    speed, flops = subject.outcome.speed, subject.outcome.model.flops_per_sample
    rate = speed.train_samples_per_s
    expected = None if rate is None or speed.by_steps is False else rate * 3 * flops
    return Result(differences(speed.train_flops_per_s, expected, "train_flops_per_s"), f"{flops:g} FLOPs per sample")


def _protocol(subject: Subject) -> Result:
    """Check that the measurement ended as required by the protocol, and that the windows have the required length."""
    from harness.measure.steady import is_enough

    if subject.migrated_from == 1:
        raise NotCheckedError("the run used the measurement method of schema version 1")
    protocol, problems = subject.spec.protocol, []
    recipe, sampled, timed = recipe_windows(subject), sampled_windows(subject), timed_windows(subject)
    if subject.record.quality_only:
        timed_batches = len(subject.samples["latencies_s"])
        counts = {"sampling windows": len(sampled), "inference windows": len(timed), "latencies": timed_batches}
        problems = [f"{count} {name} in a quality-only run" for name, count in counts.items() if count]
        return Result(problems, "only the quality was measured")
    if is_enough(recipe, protocol) and sampled:
        problems.append("training was extended although the windows of the recipe's steps were sufficient")
    if subject.spec.weights is None and not is_enough(recipe, protocol) and not sampled:
        problems.append("training was not extended although the windows of the recipe's steps were not sufficient")
    if any(is_enough([*recipe, *sampled[:count]], protocol) for count in range(1, len(sampled))):
        problems.append("the extended training did not stop when the windows were sufficient")
    if any(is_enough(timed[:count], protocol) for count in range(1, len(timed))):
        problems.append("inference did not stop when the windows were sufficient")
    window_s = min(protocol.window_s, protocol.throughput_budget_s / 4)
    short = sum(window.seconds < window_s for window in timed)
    if short:
        problems.append(f"{short} inference windows are shorter than {window_s:g} s")
    for name, windows in (("training", sampled), ("inference", timed)):
        if sum(window.seconds for window in windows[:-1]) >= protocol.throughput_budget_s:
            problems.append(f"{name} continued beyond the limit of {protocol.throughput_budget_s:g} s")
    for name, windows, required in (("training", sampled, [*recipe, *sampled]), ("inference", timed, timed)):
        seconds = sum(window.seconds for window in windows)
        longest_s = _with_untimed(seconds) + UNTIMED_WINDOW_S * len(windows)
        if windows and longest_s < protocol.throughput_budget_s and not is_enough(required, protocol):
            problems.append(f"{name} stopped after {seconds:.2f} s although the windows were not sufficient")
    latencies = subject.samples["latencies_s"]
    most, seconds = 10 * protocol.latency_batches, float(latencies.sum())
    if len(latencies) > most or latencies[:-1].sum() >= protocol.latency_budget_s:
        problems.append(
            f"the latency measurement continued beyond its limits: {len(latencies)} latencies in {seconds:.2f} s"
        )
    longest_s = _with_untimed(seconds)
    lasted = longest_s >= protocol.throughput_budget_s / 4 or len(latencies) >= most
    if longest_s < protocol.latency_budget_s and not (len(latencies) >= protocol.latency_batches and lasted):
        problems.append(f"the latency measurement stopped too early: {len(latencies)} latencies in {seconds:.2f} s")
    return Result(problems, f"{len(sampled)} windows after the recipe's steps")


def _window_lengths(subject: Subject) -> Result:
    """Check the number of steps in each training window. This number depends on the durations of earlier windows."""
    from harness.measure.training import WindowLength

    subject.require_training()
    windows = _windows(subject, "train_window_steps", "train_window_s")
    recipe, first, every = len(windows), first_windows(subject.record, subject.samples), _every_steps(subject)
    if subject.migrated_from != 1:
        windows += sampled_windows(subject)
    length, done, per_epoch = WindowLength(subject.spec.protocol.window_s), 0, steps_per_epoch(subject)
    use, total = subject.outcome.checkpoints, 0
    resumed = use.resumed_at[-1] if use and use.resumed_at else 0
    for number, window in enumerate(windows):
        if number == recipe:
            done = 0
        expected = min(1 if number in first else length.steps, per_epoch - done)
        if number < recipe and total < resumed:  # the interval between checkpoints may have been different
            expected = min(expected, window.batches)
        elif every is not None and number < recipe:
            expected = min(expected, every - total % every)
        if window.batches != expected:
            problem = (
                f"training window {number} has {window.batches} steps, but should have {expected} according to "
                "the durations of the earlier windows"
            )
            return Result([problem], "")
        done, total = (done + window.batches) % per_epoch, total + window.batches
        length.learn(window.batches, window.seconds, first=number in first)
    return Result((), f"{len(windows)} windows")


def _every_steps(subject: Subject) -> int | None:
    """Return the number of steps between checkpoints. A window ends at each checkpoint. Return None if the interval is
    not specified in steps."""
    checkpoints = subject.outcome.checkpoints
    return int(checkpoints.every.count) if checkpoints and checkpoints.every.unit == "steps" else None


def _checkpoints(subject: Subject) -> Result:
    """Check that the interruptions are consistent with the windows and the flags."""
    use, resumed = subject.outcome.checkpoints, [flag for flag in subject.outcome.flags if flag.kind == "resumed"]
    steps = use.resumed_at if use else []
    expected = [] if subject.record.quality_only else interruptions(use)
    problems = differences(resumed, expected, "flags of interruptions")
    if use is None:
        return Result(problems, "no checkpoints were requested")
    subject.require_training()
    ends = {0, *subject.samples["train_window_steps"].cumsum().tolist()}
    if steps != sorted(steps) or not ends.issuperset(steps) or 0 in steps:
        problems.append(
            f"training was resumed after {steps} steps, but not all of these steps are at the end of a window"
        )
    if list(use.earlier_s) != (["train", "validate"] if steps else []) or min(use.earlier_s.values(), default=0) < 0:
        problems.append("the durations of earlier processes do not match the interruptions")
    if use.written < 0 or use.write_s < 0 or (steps and not use.written):
        problems.append(f"{use.written} checkpoints were written in {use.write_s} s")
    return Result(problems, f"{use.written} checkpoints, {len(steps)} interruptions")


def _with_untimed(seconds: float) -> float:
    """Return the maximum duration of a loop whose timed parts took `seconds` seconds in total."""
    return seconds * (1 + UNTIMED_FRACTION) + UNTIMED_S


def _flags(subject: Subject) -> Result:
    """Compare the flags and their order with those recomputed from the windows."""
    from harness.measure.steady import suspicions

    if subject.migrated_from == 1:
        raise NotCheckedError("the flags were set when the record was migrated from schema version 1")
    if subject.record.quality_only:
        return Result(
            [f"a quality-only run has a flag for {flag.metric}" for flag in subject.outcome.flags], "no flags"
        )
    protocol = subject.spec.protocol
    recorded = [(flag.metric, flag.kind, flag.detail) for flag in subject.outcome.flags]
    problems = [f"{one} is listed twice" for number, one in enumerate(recorded) if one in recorded[:number]]
    for metric, windows in (
        ("train_throughput", [*recipe_windows(subject), *sampled_windows(subject)]),
        ("inference_throughput", timed_windows(subject)),
    ):
        of_metric = [flag for flag in recorded if flag[0] == metric]
        found = suspicions(windows, protocol) if windows or subject.spec.weights is None else []
        expected: list[tuple[str, str, str]] = [(metric, *flag) for flag in found]
        expected += [flag for flag in of_metric if flag[1] not in FROM_WINDOWS]
        problems += differences(list(map(_figures, of_metric)), list(map(_figures, expected)), metric)
    return Result(problems, f"{len(recorded)} flags")


def _figures(flag: tuple[str, str, str]) -> list[str]:
    """Return the metric and the kind of a flag, followed by the measured percentages in its details. The wording of the
    details differs between versions."""
    metric, kind, detail = flag
    measured = re.sub(r"95% (confidence )?interval", "range", detail)  # older versions called the range an interval
    return [metric, kind, *re.findall(r"[-+±]?\d[\d.]*%", measured)]


def _latency(subject: Subject) -> Result:
    from harness.measure.inference import Inference
    from harness.measure.timed import Timed

    recorded = subject.outcome.latency
    if recorded.batch_size != _inference_batch(subject):
        return Result([f"batch_size is {recorded.batch_size}, not {_inference_batch(subject)}"], "")
    samples = subject.samples["latencies_s"].tolist()
    expected = latency(Inference(Timed(), samples, {}, recorded.batch_size))
    return Result(differences(recorded, expected, "latency"), f"{len(samples)} samples")


def _timed_predictions(subject: Subject) -> Result:
    """Check that the predictions from the timed phase match the scored predictions, as in MLPerf's TEST01."""
    evidence = subject.evidence
    if subject.record.quality_only:
        compared = [evidence.timed_examples, evidence.timed_error]
        return Result(differences(compared, [0, 0.0], "timed predictions"), "no predictions were timed")
    allowed = tolerance("logits", subject.spec.precision, subject.outcome.model.parameters).value
    detail = f"{evidence.timed_examples} predictions differ by {evidence.timed_error:.1e} (allowed {allowed:.0e})"
    problems = [] if evidence.timed_examples > 0 and 0 <= evidence.timed_error <= allowed else [detail]
    if subject.arrays is not None:
        expected = _kept_examples(subject)
        fewer = subject.outcome.scores.streamed and 0 < evidence.timed_examples < expected
        if evidence.timed_examples != expected and not fewer:
            problems.append(f"{evidence.timed_examples} predictions were compared instead of {expected}")
    return Result(problems, detail)


def _kept_examples(subject: Subject) -> int:
    """Return the number of examples whose predictions were kept during the timed phase.

    Predictions are kept for the last batch of each window and for the batches of the latency measurement, up to a
    limit.
    """
    import numpy as np

    from harness.measure.inference import MAX_BYTES, MAX_KEPT, WARMUP_BATCHES

    info = subject.record.provenance.data
    assert info is not None
    size, examples = _inference_batch(subject), subject.outcome.examples["test"]
    per_example = sum(int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize for one in info.inputs.values())
    # Older versions also timed the last batch of the split, which was padded.
    whole = -(-examples // size) if subject.is_old else max(1, examples // size)
    batches = min(whole, -(-MAX_BYTES // (size * per_example)))
    after = WARMUP_BATCHES
    order = []
    for window in timed_windows(subject):
        after += window.batches
        order.append(after - 1)
    order += range(after, after + len(subject.samples["latencies_s"]))
    kept: set[int] = set()
    for number in order:
        if len(kept) < MAX_KEPT:
            kept.add(number % batches)
    return sum(min(size, examples - number * size) for number in kept)


def _clock(subject: Subject) -> Result:
    wall_s, phases = subject.record.wall_s, subject.outcome.phases_s
    problems = [f"the phase {name} took {seconds} s" for name, seconds in phases.items() if seconds < 0]
    expected = ["import", "prepare", "data", "build", "train", "validate", "inference", "score", "sampling"]
    if subject.record.quality_only:
        expected = [name for name in expected if name not in ("inference", "sampling")]
    optional = {"prepare", "sampling"}
    use = subject.outcome.checkpoints
    if use is not None and use.resumed_at:
        optional |= {"train", "validate"}  # training may have been complete when it was resumed
    if subject.spec.weights is not None:
        expected = [name for name in expected if name not in ("train", "validate", "sampling")]
        expected = (["export"] if subject.spec.weights.exported is not None else []) + expected
    named = [name for name in phases if use is None or name != "checkpoint"]
    if [name for name in expected if name in phases or name not in optional] != named:
        problems.append(f"the phases are {', '.join(phases) or 'missing'}")
    measured = sum(phases.values())
    if subject.migrated_from == 1:
        if measured > wall_s + CLOCK_S + CLOCK_FRACTION * wall_s:
            problems.append(f"the phases took {measured:.2f} s, but the process took only {wall_s:.2f} s")
        return Result(problems, f"the phases took {measured:.2f} s, and the process took {wall_s:.2f} s")
    evidence = subject.evidence
    allowed = CLOCK_S + CLOCK_FRACTION * evidence.wall_s
    detail = (
        f"{evidence.clock_s:.2f} s by the step timer, {evidence.wall_s:.2f} s by the wall clock; the phases took "
        f"{measured:.2f} s of the {wall_s:.2f} s that the parent process measured"
    )
    within = sum(phases.get(name, 0.0) for name in ("train", "validate", "inference", "score", "sampling"))
    agree = abs(evidence.clock_s - evidence.wall_s) <= allowed and within <= evidence.clock_s + allowed
    if not agree or measured > wall_s + allowed:
        problems.append(detail)
    return Result(problems, detail)


def _phases(subject: Subject) -> Result:
    """Check that each phase lasted at least as long as its windows."""
    arrays, phases = subject.samples, subject.outcome.phases_s
    parts = {"inference": arrays["inference_window_s"].sum() + arrays["latencies_s"].sum()}
    if subject.spec.weights is None:
        parts["train"] = arrays["train_window_s"].sum()
        parts["sampling"] = arrays["sampling_window_s"].sum() if "sampling_window_s" in arrays else 0.0
    use = subject.outcome.checkpoints
    earlier = use.earlier_s if use else {}
    problems = [
        f"the phase {name} took {phases.get(name, 0.0):.3f} s, but its windows took {seconds:.3f} s"
        for name, seconds in parts.items()
        if phases.get(name, 0.0) + earlier.get(name, 0.0) < seconds
    ]
    if (
        subject.spec.weights is None
        and subject.migrated_from is None
        and ("sampling" in phases) != bool(len(arrays["sampling_window_s"]))
    ):
        problems.append("the record contains the sampling phase without its windows, or the windows without the phase")
    return Result(problems, ", ".join(f"{name} {phases.get(name, 0.0):.2f} s" for name in parts))


def _energy(subject: Subject) -> Result:
    """Check that energy and power match the duration of each steady state."""
    speed, energy, problems = subject.outcome.speed, subject.outcome.energy, []
    if subject.record.quality_only:
        return Result(differences(energy, Energy(), "energy"), "no energy was measured")
    for name, use in (("cpu", energy.cpu), ("gpu", energy.gpu)):
        if use is None:
            continue
        for part, rate, joules, watts in (
            ("train", speed.train_samples_per_s, use.train_j_per_sample, use.train_w),
            ("inference", speed.inference_samples_per_s, use.inference_j_per_sample, use.inference_w),
        ):
            if (joules is None) != (watts is None):
                problems.append(f"{name}.{part} has a value for energy or power, but not for both")
            if joules is None or watts is None or rate is None:
                continue
            # The rate is a median and the energy is a sum, so power and energy agree only approximately.
            if joules < 0 or watts < 0 or not watts * 0.5 <= joules * rate <= watts * 2 + 1e-9:
                problems.append(f"{name}.{part}: {joules} J per sample at {rate} samples/s, but {watts} W")
    return Result(problems, "energy and power are consistent" if energy.cpu or energy.gpu else "no energy was measured")


CHECKS = (
    Check(
        "throughputs match the durations of the windows",
        (
            "quality_only",
            "outcome.speed.train_samples_per_s",
            "outcome.speed.inference_samples_per_s",
            "outcome.speed.first_step_s",
            "outcome.speed.train",
            "outcome.speed.inference",
        ),
        _speed,
    ),
    Check("FLOP/s match the training throughput", ("outcome.speed.train_flops_per_s",), _flops),
    Check("the measurement followed the protocol", (), _protocol),
    Check("the numbers of steps in the training windows match their durations", (), _window_lengths),
    Check("flags match the measured windows", ("outcome.flags",), _flags),
    Check("percentiles match the measured latencies", ("outcome.latency",), _latency),
    Check(
        "timed predictions match the scored predictions",
        ("outcome.evidence.timed_examples", "outcome.evidence.timed_error"),
        _timed_predictions,
    ),
    Check(
        "the step timer agrees with wall-clock time",
        ("outcome.evidence.clock_s", "outcome.evidence.wall_s", "outcome.phases_s", "wall_s"),
        _clock,
    ),
    Check("interruptions agree with the windows and the flags", ("outcome.checkpoints",), _checkpoints),
    Check("phases lasted at least as long as their windows", ("outcome.phases_s",), _phases),
    Check("energy and power are consistent", ("outcome.energy.cpu", "outcome.energy.gpu"), _energy),
)

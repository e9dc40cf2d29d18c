"""Check plugins against the rules of the conformance kit. Each object is checked in a separate child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from harness.errors import HarnessError, UnknownNameError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.variables import thread_environment
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.plugins.requirements import missing
from harness.records import PluginRef
from harness.testing.rule import Finding, Rule
from harness.testing.rules.backends import BACKEND_RULES
from harness.testing.rules.datasets import DATASET_RULES, LoadedDataset
from harness.testing.rules.metrics import METRIC_RULES
from harness.testing.rules.models import MODEL_RULES, SizedModel
from harness.testing.rules.networks import FLOPS, NETWORK_RULES, PARITY, PARITY_FIX
from harness.testing.rules.plugins import PLUGIN_RULES, Installed
from harness.testing.rules.reporters import REPORTER_RULES, Rendered
from harness.testing.rules.tasks import TASK_RULES, PreparedTask
from harness.testing.workbench import Workbench

LIMIT_S = 900.0
"""Time limit for checking all rules for one object, in seconds."""

PARITY_STEPS = 20
"""Number of training steps for comparing a model's networks on two backends. The number is small to keep the check
short. ``harness parity`` compares more steps."""

NEEDED_BY_NETWORKS = ("model-variants-are-valid", "model-parameters-are-valid", "model-recipes-are-valid")
"""Rules for models without which the networks of the model cannot be checked."""

RULES: dict[str, tuple[Rule[Any], ...]] = {
    "plugin": PLUGIN_RULES,
    "dataset": DATASET_RULES,
    "task": TASK_RULES,
    "model": MODEL_RULES,
    "backend": BACKEND_RULES,
    "network": NETWORK_RULES,
    "metric": METRIC_RULES,
    "reporter": REPORTER_RULES,
}
"""Rules for each kind of object."""

Progress = Callable[[str], None]
"""Function that receives a description of what is being checked."""


class Subject(Struct, frozen=True):
    """Kind and name of an object provided by a plugin. Networks are named ``model/backend``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class CheckJob(Struct, frozen=True, kw_only=True):
    """Input of a child process: the object to check and the plugins to load."""

    subject: Subject
    plugins: tuple[PluginRef, ...]


def check_plugin(ref: PluginRef, catalog: Catalog, progress: Progress = lambda text: None) -> Iterator[Finding]:
    """Yield the findings for a plugin and for every object that it provides.

    `progress` is called before each object is checked, with a string such as ``network vit/torch (2 of 3)``. If the
    plugin fails to load, a single finding gives the reason. If the plugin provides networks for a model on two
    backends, the two networks are compared only once.

    A violation that would cause other violations is reported only once. If a model violates one of the rules in
    `NEEDED_BY_NETWORKS`, the networks of this model are not checked. If a network violates a rule other than `FLOPS`,
    this network is not compared with networks on other backends.
    """
    progress(f"plugin {ref.name}")
    whole = Installed(ref, catalog)
    if any(failure.ref == ref for failure in catalog.failures):
        yield PLUGIN_RULES[0].apply(f"plugin {ref.name}", whole)
        return
    for rule in PLUGIN_RULES:
        yield rule.apply(f"plugin {ref.name}", whole)
    offered, violated = list(enumerate(subjects(ref, catalog), 1)), dict[str, str]()
    for number, subject in offered:
        progress(f"{subject} ({number} of {len(offered)})")
        model = f"model {subject.name.rpartition('/')[0]}"
        if subject.kind == "network" and violated.get(model) in NEEDED_BY_NETWORKS:
            reason = f"the {model} violates the rule {violated[model]}"
            yield from (_not_checked(rule.name, subject, reason) for rule in NETWORK_RULES)
            continue
        for finding in check(subject, catalog):
            recorded = violated.get(str(subject)) in NEEDED_BY_NETWORKS
            if finding.passed is False and finding.rule != FLOPS and not recorded:
                violated[str(subject)] = finding.rule
            yield finding
    yield from _comparisons(offered, violated, catalog, progress)


def _comparisons(
    offered: list[tuple[int, Subject]], violated: dict[str, str], catalog: Catalog, progress: Progress
) -> Iterator[Finding]:
    """Compare each network in `offered` with another backend, and yield the findings. `violated` contains a violated
    rule for each faulty object."""
    compared = dict[tuple[str, frozenset[str]], Finding]()
    for number, subject in offered:
        model, _, backend = subject.name.rpartition("/")
        if subject.kind != "network" or backend not in catalog.backends:
            continue
        other = rival(subject, catalog)
        pair = model, frozenset((backend, other or ""))
        faulty = [name for name in (f"model {model}", str(subject), f"network {model}/{other}") if name in violated]
        faulty = [name for name in faulty if name.startswith("network") or violated[name] in NEEDED_BY_NETWORKS]
        if faulty:
            yield _not_checked(PARITY, subject, f"the {faulty[0]} violates the rule {violated[faulty[0]]}")
        elif pair not in compared:
            place = f"parity of {subject} ({number} of {len(offered)})"
            progress(place)
            compared[pair] = parity(subject, catalog, partial(_say, progress, place))
            yield compared[pair]
        elif compared[pair].passed is False:
            yield _not_checked(PARITY, subject, f"the comparison with {other} is reported for that network")
        else:
            yield msgspec.structs.replace(compared[pair], subject=str(subject))


def _say(progress: Progress, place: str, text: str) -> None:
    progress(f"{place}: {text}")


def subjects(ref: PluginRef, catalog: Catalog) -> list[Subject]:
    """Return every object that the plugin provides."""
    kinds: dict[str, dict[Any, Provided[Any]]] = {
        "dataset": catalog.datasets,
        "task": catalog.tasks,
        "model": catalog.models,
        "metric": catalog.metrics,
        "reporter": catalog.reporters,
        "backend": catalog.backends,
        "network": catalog.networks,
    }
    return [
        Subject(kind, "/".join(name) if isinstance(name, tuple) else name)
        for kind, known in kinds.items()
        for name, provided in known.items()
        if provided.plugin == ref
    ]


def check(subject: Subject, catalog: Catalog) -> list[Finding]:
    """Check the rules for an object in a child process.

    If the process crashes or exceeds the time limit, the rule being checked is reported as broken. If the backend or
    the model of a network is not installed, nothing is checked. However, if the missing name is similar to the name of
    an installed backend or model, the first rule is reported as broken.
    """
    findings: list[Finding] = []
    rules = RULES[subject.kind]
    try:
        environment = thread_environment(1) | environment_of(subject, catalog)
        if subject.kind == "network":
            catalog.model(subject.name.rpartition("/")[0])
    except HarnessError as error:  # the network's backend or model is not installed
        part = error.kind if isinstance(error, UnknownNameError) else "backend"
        fix = f"install the plugin that provides the {part}, or correct NetworkRef({part}=...)"
        unchecked = [_not_checked(rule.name, subject, f"{error}; {fix}") for rule in rules]
        if isinstance(error, UnknownNameError) and error.near is not None:  # probably misspelled
            first = Finding(rule=rules[0].name, subject=str(subject), passed=False, seen=str(error), fix=fix)
            return [first, *unchecked[1:]]
        return unchecked
    failure = call_in_child(
        check_rules,
        CheckJob(subject=subject, plugins=tuple(plugin.ref for plugin in catalog.plugins)),
        timeout_s=LIMIT_S,
        environment=environment,
        event_type=Finding,
        on_event=findings.append,
    )
    if len(findings) < len(rules):
        rule = rules[len(findings)]
        seen = failure.message if failure else "the check returned no result"
        findings.append(Finding(rule=rule.name, subject=str(subject), passed=False, seen=seen, fix=rule.fix))
        reason = f"the process exited while checking {rule.name}"
        findings += [_not_checked(left.name, subject, reason) for left in rules[len(findings) :]]
    return findings


def _not_checked(rule: str, subject: Subject, reason: str) -> Finding:
    return Finding(rule=rule, subject=str(subject), passed=None, seen=reason)


def environment_of(subject: Subject, catalog: Catalog) -> dict[str, str]:
    """Return the environment variables that the object's backend requires. If the object has no backend, the result is
    empty."""
    if subject.kind not in ("backend", "network"):
        return {}
    return dict(catalog.backend(subject.name.rpartition("/")[2]).environment)


def parity(subject: Subject, catalog: Catalog, progress: Progress = lambda text: None) -> Finding:
    """Compare a network with the same model on another installed backend. `progress` is called at the start of each
    part of the comparison."""
    from harness.checks.parity.check import check as compare
    from harness.checks.parity.check import specs_to_check
    from harness.checks.parity.text import render
    from harness.plan.selection import Selection
    from harness.testing.rule import NotChecked

    model, _, backend = subject.name.rpartition("/")
    not_checked = partial(_not_checked, PARITY, subject)
    if not catalog.backend(backend).trains:
        return not_checked("the backend only computes predictions; compare it with `harness evaluate`")
    if not catalog.backend(backend).trains_by_steps:
        return not_checked("each training step of the backend fits the model from scratch")
    other = rival(subject, catalog)
    if other is None:
        return not_checked("no other installed backend has a network for the model")
    try:
        spec = Workbench(catalog.backend(backend), catalog, model).spec
        selection = Selection(tasks=(spec.task,), models=(spec.model,), backends=(other, backend), devices=("cpu",))
        base, new = specs_to_check(selection, catalog)
    except NotChecked as reason:
        return not_checked(str(reason))
    except HarnessError as error:
        return Finding(rule=PARITY, subject=str(subject), passed=False, seen=str(error))
    verdict = compare(base, new, catalog, steps=PARITY_STEPS, say=progress)
    seen = f"the results of {other} and {backend} match" if verdict.passed else render(verdict)
    return Finding(
        rule=PARITY, subject=str(subject), passed=verdict.passed, seen=seen, fix="" if verdict.passed else PARITY_FIX
    )


def rival(subject: Subject, catalog: Catalog) -> str | None:
    """Return the installed backend to compare a network with, or None if no other backend trains the model in steps."""
    model, _, backend = subject.name.rpartition("/")
    return next(
        (
            name
            for name, provided in catalog.backends.items()
            if name != backend
            and provided.value.trains
            and provided.value.trains_by_steps
            and catalog.network(model, name)
            and missing(provided.value.requires) is None
        ),
        None,
    )


def rule_argument(subject: Subject, catalog: Catalog) -> Any:
    """Return the argument to pass to the rules for this kind of object."""
    name = subject.name
    match subject.kind:
        case "plugin":
            return Installed(catalog.plugin(name), catalog)
        case "dataset":
            return LoadedDataset(catalog.dataset(name))
        case "task":
            return PreparedTask(catalog.task(name), catalog)
        case "model":
            return SizedModel(catalog.model(name)[0], catalog)
        case "metric":
            return catalog.metric(name)
        case "reporter":
            return Rendered(catalog.reporter(name), catalog)
        case "backend":
            return Workbench(catalog.backend(name), catalog)
        case "network":
            model, _, backend = name.rpartition("/")
            return Workbench(catalog.backend(backend), catalog, model)
    raise ValueError(subject.kind)


def apply_rules(subject: Subject, catalog: Catalog) -> Iterator[Finding]:
    """Check an object in this process, and yield the findings.

    If several rules fail with the same message, only the first one is reported as broken.
    """
    argument = rule_argument(subject, catalog)
    reported: dict[str, str] = {}
    for rule in RULES[subject.kind]:
        finding = rule.apply(str(subject), argument)
        if finding.passed is False:
            first = reported.setdefault(finding.seen, finding.rule)
            if first != finding.rule:
                finding = _not_checked(rule.name, subject, f"the check failed with the same error as {first}")
        yield finding


def check_rules(job: CheckJob, context: ChildContext) -> None:
    """Check an object, and send each finding to the parent process."""
    for finding in apply_rules(job.subject, load(job.plugins)):
        context.send(finding)

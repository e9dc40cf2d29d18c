"""`check_plugin`: every rule for everything that a plugin brings, in child processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from harness.errors import HarnessError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.runner import thread_environment
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.plugins.requirements import missing
from harness.records import PluginRef
from harness.testing.rule import Finding, Rule
from harness.testing.rules.backends import BACKEND_RULES
from harness.testing.rules.datasets import DATASET_RULES, LoadedDataset
from harness.testing.rules.metrics import METRIC_RULES
from harness.testing.rules.models import MODEL_RULES, SizedModel
from harness.testing.rules.networks import NETWORK_RULES, PARITY, PARITY_FIX
from harness.testing.rules.plugins import PLUGIN_RULES, Installed
from harness.testing.rules.reporters import REPORTER_RULES, Rendered
from harness.testing.rules.tasks import TASK_RULES, PreparedTask
from harness.testing.workbench import Workbench

LIMIT_S = 900.0
"""For the rules of one thing."""

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
"""Kind of thing -> its rules."""

_NO_BACKEND = "NetworkRef(backend=...) names a backend of `harness list backends`, or one that your plugin brings"
Say = Callable[[str], None]


class Subject(Struct, frozen=True):
    """One thing that a plugin brings; of a network the name is ``model/backend``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class CheckJob(Struct, frozen=True, kw_only=True):
    subject: Subject
    plugins: tuple[PluginRef, ...]


def check_plugin(ref: PluginRef, catalog: Catalog, say: Say = lambda text: None) -> Iterator[Finding]:
    """The findings of one plugin of the catalog, as they come; `say` hears what is looked at.

    A plugin that does not load has that one finding.
    """
    say(f"plugin {ref.name}")
    whole = Installed(ref, catalog)
    if any(failure.ref == ref for failure in catalog.failures):
        yield PLUGIN_RULES[0].look(f"plugin {ref.name}", whole)
        return
    for rule in PLUGIN_RULES:
        yield rule.look(f"plugin {ref.name}", whole)
    for subject in subjects(ref, catalog):
        say(str(subject))
        yield from check(subject, catalog)
        if subject.kind == "network" and subject.name.rpartition("/")[2] in catalog.backends:
            yield parity(subject, catalog)


def subjects(ref: PluginRef, catalog: Catalog) -> list[Subject]:
    """Everything that the plugin brings, but itself."""
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
    """Check the rules for one thing in a child process. What ends the process is a finding of the rule that it ended
    in."""
    findings: list[Finding] = []
    rules = RULES[subject.kind]
    try:
        environment = thread_environment(1) | environment_of(subject, catalog)
    except HarnessError as error:  # a network for a backend that is not there
        wrong = Finding(rule=rules[0].name, subject=str(subject), passed=False, seen=str(error), fix=_NO_BACKEND)
        return [wrong, *(Finding(rule=r.name, subject=str(subject), passed=None, seen="no backend") for r in rules[1:])]
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
        seen = failure.message if failure else "left no finding"
        findings.append(Finding(rule=rule.name, subject=str(subject), passed=False, seen=seen, fix=rule.fix))
        reason = f"its process ended in {rule.name}"
        findings += [
            Finding(rule=left.name, subject=str(subject), passed=None, seen=reason) for left in rules[len(findings) :]
        ]
    return findings


def environment_of(subject: Subject, catalog: Catalog) -> dict[str, str]:
    """The variables that a backend wants to be set before anything is imported."""
    if subject.kind not in ("backend", "network"):
        return {}
    return dict(catalog.backend(subject.name.rpartition("/")[2]).environment)


def parity(subject: Subject, catalog: Catalog) -> Finding:
    """Whether a network computes what the same model does on another backend that is here."""
    from harness.checks.parity.check import check as compare
    from harness.checks.parity.text import render
    from harness.plan.expand import expand
    from harness.plan.selection import Selection
    from harness.testing.rule import NotChecked

    model, _, backend = subject.name.rpartition("/")

    def not_checked(reason: str) -> Finding:
        return Finding(rule=PARITY, subject=str(subject), passed=None, seen=reason)

    if not catalog.backend(backend).trains_by_steps:
        return not_checked("each step of the backend fits anew")
    others = [
        name
        for name, provided in catalog.backends.items()
        if name != backend and catalog.network(model, name) and missing(provided.value.requires) is None
    ]
    if not others:
        return not_checked("no other backend here has a network of the model")
    try:
        spec = Workbench(catalog.backend(backend), catalog, model).spec
    except NotChecked as reason:
        return not_checked(str(reason))
    selection = Selection(tasks=(spec.task,), models=(spec.model,), backends=(others[0], backend), devices=("cpu",))
    one, other = expand(selection, catalog)
    verdict = compare(one, other, catalog)
    seen = f"the same as {others[0]}" if verdict.passed else render(verdict)
    return Finding(
        rule=PARITY, subject=str(subject), passed=verdict.passed, seen=seen, fix="" if verdict.passed else PARITY_FIX
    )


def thing(subject: Subject, catalog: Catalog) -> Any:
    """What the rules of its kind are called with."""
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


def look(subject: Subject, catalog: Catalog, rules: Sequence[Rule[Any]] = ()) -> Iterator[Finding]:
    """In this process. What several rules stumble over is told once."""
    looked_at = thing(subject, catalog)
    told: dict[str, str] = {}
    for rule in rules or RULES[subject.kind]:
        finding = rule.look(str(subject), looked_at)
        if finding.passed is False:
            first = told.setdefault(finding.seen, finding.rule)
            if first != finding.rule:
                finding = Finding(
                    rule=rule.name, subject=str(subject), passed=None, seen=f"it stumbles as {first} does"
                )
        yield finding


def check_rules(job: CheckJob, context: ChildContext) -> None:
    """Send each finding as it comes."""
    for finding in look(job.subject, load(job.plugins)):
        context.send(finding)

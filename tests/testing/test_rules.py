"""Every rule of the conformance kit is broken by the fault that it is for, and by no other; what is sound keeps all."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from toy_plugin import TOY_REF, install_toy

import harness
from harness.interfaces import Metric
from harness.measure.environment import available_cores
from harness.plugins import discover, load
from harness.plugins.catalog import Catalog, Provided
from harness.records import IGNORED
from harness.testing.check import RULES, Subject, check, check_plugin, look, subjects
from harness.testing.rule import Finding

RULE_NAMES = {kind: [rule.name for rule in rules] for kind, rules in RULES.items()}


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    patch = pytest.MonkeyPatch()
    install_toy(patch)
    yield importlib.import_module("kit_faults")
    patch.undo()


@pytest.fixture
def catalog(faults: ModuleType) -> Catalog:
    return load([TOY_REF])


def broken(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings if finding.passed is False]


def put(catalog: Catalog, kind: str, thing: Any) -> Subject:
    known: dict[str, Any] = {
        "dataset": catalog.datasets,
        "task": catalog.tasks,
        "model": catalog.models,
        "metric": catalog.metrics,
        "reporter": catalog.reporters,
        "backend": catalog.backends,
    }
    known[kind][thing.name] = Provided(thing, TOY_REF)
    return Subject(kind, thing.name)


def test_the_toy_keeps_every_rule(catalog: Catalog) -> None:
    for subject in subjects(TOY_REF, catalog):
        findings = list(look(subject, catalog))
        assert [str(finding) for finding in findings if finding.passed is False] == []
        absent = "toy-absent" in subject.name
        assert any(finding.passed is None for finding in findings) or not absent


# ---- one fault, one finding -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULE_NAMES["dataset"])
def test_datasets(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    found = list(look(put(catalog, "dataset", faults.DATASETS[rule]()), catalog))
    assert broken(found) == [rule]
    assert all(finding.seen and finding.fix for finding in found if finding.passed is False)


@pytest.mark.parametrize("rule", RULE_NAMES["task"])
def test_tasks(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    assert broken(list(look(put(catalog, "task", faults.TASKS[rule]()), catalog))) == [rule]


@pytest.mark.parametrize("rule", RULE_NAMES["model"])
def test_models(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    found = broken(list(look(put(catalog, "model", faults.MODELS[rule]()), catalog)))
    assert found[0] == rule
    assert found == [rule] or rule == "model-variants-are-sizes"


@pytest.mark.parametrize("rule", RULE_NAMES["metric"][1:])
def test_metrics(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    assert broken(list(look(put(catalog, "metric", faults.METRICS[rule]()), catalog))) == [rule]


def test_metric_that_is_nowhere(faults: ModuleType, catalog: Catalog) -> None:
    found = list(look(put(catalog, "metric", faults.metric("kit_faults:nothing")), catalog))
    assert broken(found)[0] == "metric-resolves"
    assert "has no attribute 'nothing'" in found[0].seen


def right_positions(targets: Any, outputs: Any, info: Any) -> float:
    return float((outputs.argmax(axis=-1) == targets)[targets != IGNORED].mean())


def wrong_positions(targets: Any, outputs: Any, info: Any) -> float:
    return 1 - right_positions(targets, outputs, info)


@pytest.mark.parametrize(
    ("function", "rules"), [(right_positions, []), (wrong_positions, ["metric-prefers-what-is-right"])]
)
def test_metrics_of_positions(function: Any, rules: list[str], catalog: Catalog) -> None:
    metric = Metric(
        name="right",
        objective="token_classification",
        function=f"{__name__}:{function.__name__}",
        higher_is_better=True,
        summary="share of the positions that are right",
        bounds=(0.0, 1.0),
    )
    assert broken(list(look(put(catalog, "metric", metric), catalog))) == rules


@pytest.mark.parametrize("rule", RULE_NAMES["reporter"])
def test_reporters(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    for fault in faults.REPORTERS[rule]:
        assert broken(list(look(put(catalog, "reporter", fault()), catalog))) == [rule]


@pytest.mark.parametrize("rule", [rule for rule in RULE_NAMES["backend"] if rule != "backend-respects-threads"])
def test_backends(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    for fault in faults.BACKENDS[rule]:
        assert broken(list(look(put(catalog, "backend", fault()), catalog))) == [rule]


@pytest.mark.slow
def test_backends_that_take_more_threads(faults: ModuleType, catalog: Catalog) -> None:
    """Seen where nothing else keeps the cores: not among the tests that run side by side."""
    if available_cores() < 2:
        pytest.skip("this machine has one core")
    (fault,) = faults.BACKENDS["backend-respects-threads"]
    assert broken(list(look(put(catalog, "backend", fault()), catalog))) == ["backend-respects-threads"]


def test_networks(faults: ModuleType, catalog: Catalog) -> None:
    put(catalog, "backend", faults.opening(faults.Widens))
    assert broken(list(look(Subject("network", "toy/toy-numpy"), catalog))) == ["network-has-every-parameter"]
    put(catalog, "backend", faults.opening(faults.SortsOutputs))
    assert broken(list(look(Subject("network", "toy/toy-numpy"), catalog))) == ["network-predicts-each-example"]


# ---- the plugin as a whole --------------------------------------------------------------------------------

SOUND = """
import harness
HARNESS_API_VERSION = "1.0"

@harness.hookimpl
def harness_run_finished(record):
    pass
"""

WHOLE = {
    "plugin-loads": "raise RuntimeError('half of it')",
    "plugin-brings-something": 'HARNESS_API_VERSION = "1.0"',
    "plugin-shares-no-name": SOUND
    + """
@harness.hookimpl
def harness_metrics():
    yield harness.Metric(name="accuracy", objective="classification", function="math:fsum", higher_is_better=True,
                         summary="")
""",
    "plugin-declares-its-api": SOUND.replace("HARNESS_API_VERSION", "MY_VERSION"),
    "plugin-imports-nothing-heavy": "import decimal, numpy\n" + SOUND,
    "plugin-imports-quickly": "import time; time.sleep(0.06)\n" + SOUND,
}


@pytest.mark.parametrize("rule", ["", *RULE_NAMES["plugin"]])
def test_plugins(rule: str, tmp_path: Path) -> None:
    path = tmp_path / f"whole_{rule.replace('-', '_')}.py"
    path.write_text(textwrap.dedent(WHOLE.get(rule, SOUND)))
    catalog = discover([str(path)])
    (ref,) = [
        known.ref for group in (catalog.plugins, catalog.failures) for known in group if known.ref.value == str(path)
    ]
    try:
        found = broken(list(check_plugin(ref, catalog)))
    finally:
        sys.modules.pop(path.stem, None)
    allowed = {"plugin-imports-quickly"} if rule == "plugin-imports-nothing-heavy" else set()
    assert set(found) - allowed == ({rule} if rule else set())


def test_a_session_without_a_method_is_told_which_to_write(faults: ModuleType, catalog: Catalog) -> None:
    unfinished = type("Unfinished", (harness.Session,), {"__init__": lambda self, request: None})
    found = list(look(put(catalog, "backend", faults.opening(unfinished)), catalog))
    opens = next(finding for finding in found if finding.rule == "backend-opens")
    methods = "fetch, get_weights, gradients, predict, set_weights, synchronize, train_step"
    assert opens.fix == f"write the methods {methods} of Unfinished"
    assert "an abstract method is not implemented" in opens.seen


# ---- crashes ----------------------------------------------------------------------------------------------


def test_what_ends_the_process_is_a_finding(toy_path: Path, tmp_path: Path) -> None:
    source = """
    import harness, os
    class Dies(harness.Dataset):
        name, kind, objective, summary, license = "dies", "points", "regression", "a", "b"
        def load(self, options):
            os._exit(7)
    @harness.hookimpl
    def harness_datasets():
        yield Dies()
    """
    path = tmp_path / "dying_plugin.py"
    path.write_text(textwrap.dedent(source))
    try:
        found = check(Subject("dataset", "dies"), discover([str(path)]))
    finally:
        sys.modules.pop("dying_plugin", None)
    assert [finding.passed for finding in found[:3]] == [True, False, None]
    assert found[1].rule == "dataset-loads"
    assert "ended with status 7" in found[1].seen
    assert len(found) == len(RULES["dataset"])


@pytest.fixture
def toy_path(monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)

"""Tests of the conformance kit: every rule is broken by its own fault only, and valid plugins break none."""

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
from harness.measure.cgroup import available_cores
from harness.plugins import discover, load
from harness.plugins.catalog import Catalog, Provided
from harness.records import IGNORED
from harness.testing import check as kit
from harness.testing.check import RULES, Subject, apply_rules, check, check_plugin, subjects
from harness.testing.rule import Finding, Rule
from harness.testing.rules.networks import FLOPS, PARITY

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


def test_toy_plugin_breaks_no_rule(catalog: Catalog) -> None:
    for subject in subjects(TOY_REF, catalog):
        findings = list(apply_rules(subject, catalog))
        assert [str(finding) for finding in findings if finding.passed is False] == []
        absent = "toy-absent" in subject.name
        assert any(finding.passed is None for finding in findings) or not absent


# ---- one fault, one finding -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULE_NAMES["dataset"])
def test_faulty_dataset_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    findings = list(apply_rules(put(catalog, "dataset", faults.DATASETS[rule]()), catalog))
    assert broken(findings) == [rule]
    assert all(finding.seen for finding in findings if finding.passed is False), [f.seen for f in findings]


@pytest.mark.parametrize("rule", RULE_NAMES["task"])
def test_faulty_task_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    assert broken(list(apply_rules(put(catalog, "task", faults.TASKS[rule]()), catalog))) == [rule]


@pytest.mark.parametrize("rule", RULE_NAMES["model"])
def test_faulty_model_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    findings = broken(list(apply_rules(put(catalog, "model", faults.MODELS[rule]()), catalog)))
    assert findings[0] == rule
    assert findings == [rule] or rule == "model-variants-are-valid"


@pytest.mark.parametrize("rule", RULE_NAMES["metric"][1:])
def test_faulty_metric_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    assert broken(list(apply_rules(put(catalog, "metric", faults.METRICS[rule]()), catalog))) == [rule]


@pytest.mark.parametrize("function", ["gives_text", "gives_a_bool", "gives_an_array"])
def test_metric_that_does_not_return_a_number_breaks_a_rule(
    function: str, faults: ModuleType, catalog: Catalog
) -> None:
    findings = list(apply_rules(put(catalog, "metric", faults.metric(f"kit_faults:{function}")), catalog))
    assert broken(findings)[0] == "metric-returns-numbers"


def test_metric_with_a_missing_function_does_not_resolve(faults: ModuleType, catalog: Catalog) -> None:
    findings = list(apply_rules(put(catalog, "metric", faults.metric("kit_faults:nothing")), catalog))
    assert broken(findings)[0] == "metric-resolves"
    assert "has no attribute 'nothing'" in findings[0].seen


def test_task_is_not_checked_if_its_dataset_returns_no_raw_data(catalog: Catalog) -> None:
    from harness_toy import ToyNumbers

    put(catalog, "dataset", type("Empty", (ToyNumbers,), {"load": lambda self, options: None})())
    findings = list(apply_rules(Subject("task", "toy-regress"), catalog))
    assert not broken(findings)
    assert any("'toy-numbers' does not return RawData" in finding.seen for finding in findings)


def accuracy_of_positions(targets: Any, outputs: Any, info: Any) -> float:
    return float((outputs.argmax(axis=-1) == targets)[targets != IGNORED].mean())


def error_of_positions(targets: Any, outputs: Any, info: Any) -> float:
    return 1 - accuracy_of_positions(targets, outputs, info)


@pytest.mark.parametrize(
    ("function", "rules"), [(accuracy_of_positions, []), (error_of_positions, ["metric-prefers-correct-predictions"])]
)
def test_token_classification_metric_prefers_correct_predictions(
    function: Any, rules: list[str], catalog: Catalog
) -> None:
    metric = Metric(
        name="right",
        objective="token_classification",
        function=f"{__name__}:{function.__name__}",
        higher_is_better=True,
        summary="fraction of correct positions",
        bounds=(0.0, 1.0),
    )
    assert broken(list(apply_rules(put(catalog, "metric", metric), catalog))) == rules


@pytest.mark.parametrize("rule", RULE_NAMES["reporter"])
def test_faulty_reporter_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    for fault in faults.REPORTERS[rule]:
        assert broken(list(apply_rules(put(catalog, "reporter", fault()), catalog))) == [rule]


TESTED_SEPARATELY = ("backend-respects-threads", "backend-computes-the-exported-model")
"""Rules with their own tests: below, and in tests/deploy/test_exported.py."""


@pytest.mark.parametrize("rule", [rule for rule in RULE_NAMES["backend"] if rule not in TESTED_SEPARATELY])
def test_faulty_backend_breaks_one_rule(rule: str, faults: ModuleType, catalog: Catalog) -> None:
    for fault in faults.BACKENDS[rule]:
        assert broken(list(apply_rules(put(catalog, "backend", fault()), catalog))) == [rule]


@pytest.mark.slow
def test_backend_with_more_threads_breaks_one_rule(faults: ModuleType, catalog: Catalog) -> None:
    """Test the thread rule, which needs idle cores and is therefore not run in parallel with other tests."""
    if available_cores() < 2:
        pytest.skip("this machine has only one core")
    (fault,) = faults.BACKENDS["backend-respects-threads"]
    assert broken(list(apply_rules(put(catalog, "backend", fault()), catalog))) == ["backend-respects-threads"]


def test_faulty_network_breaks_one_rule(faults: ModuleType, catalog: Catalog) -> None:
    put(catalog, "backend", faults.opening(faults.Widens))
    assert broken(list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))) == ["network-has-every-parameter"]
    put(catalog, "backend", faults.opening(faults.SortsOutputs))
    assert broken(list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))) == ["network-predicts-each-example"]
    put(catalog, "backend", faults.opening(faults.Drops))
    findings = list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))
    assert broken(findings) == ["network-declares-its-dropout"]
    put(catalog, "backend", faults.opening(faults.CountsMore))
    findings = list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))
    assert broken(findings) == ["network-computes-the-declared-flops"]
    assert "returns 24, but the network computes 25 operations per example" in findings[-1].seen


@pytest.mark.parametrize("session", ["Drops", "NumpySession"])
def test_network_of_a_model_with_dropout_must_use_dropout(session: str, faults: ModuleType, catalog: Catalog) -> None:
    from harness_toy import ToyLinear

    put(catalog, "model", type("WithDropout", (ToyLinear,), {"has_dropout": True})())
    put(catalog, "backend", faults.opening(getattr(faults, session)))
    findings = list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))
    assert broken(findings) == ([] if session == "Drops" else ["network-declares-its-dropout"])


def test_network_whose_operations_are_not_counted_is_not_checked(catalog: Catalog) -> None:
    finding = list(apply_rules(Subject("network", "toy/toy-numpy"), catalog))[-1]
    assert finding.rule == "network-computes-the-declared-flops"
    assert (finding.passed, finding.seen) == (None, "NumpySession does not count the operations of networks")


def test_dropout_that_would_be_ignored_breaks_a_rule(faults: ModuleType, catalog: Catalog) -> None:
    findings = list(apply_rules(put(catalog, "model", faults.IgnoredDropout()), catalog))
    assert broken(findings) == ["model-recipes-are-valid"]


@pytest.mark.parametrize(
    ("method", "rule", "message"),
    [
        ("flops_per_sample", "model-has-flops", "model 'toy': flops_per_sample() returned None instead of a number"),
        ("parameters", "model-variants-are-valid", "model 'toy': parameters() returned None instead of a list"),
    ],
)
def test_method_that_returns_nothing_is_named(method: str, rule: str, message: str, catalog: Catalog) -> None:
    from harness_toy import ToyLinear

    def forgets(self: Any, config: Any, info: Any) -> None:
        """Return nothing."""

    findings = list(apply_rules(put(catalog, "model", type("Forgets", (ToyLinear,), {method: forgets})()), catalog))
    first = next(finding for finding in findings if finding.passed is False)
    assert first.rule == rule
    assert first.seen.startswith(message)


# ---- the plugin as a whole --------------------------------------------------------------------------------

SOUND = """
import harness
HARNESS_API_VERSION = "1.0"

@harness.hookimpl
def harness_run_finished(record):
    pass
"""

WHOLE = {
    "plugin-loads": "raise RuntimeError('incomplete')",
    "plugin-implements-a-hook": 'HARNESS_API_VERSION = "1.0"',
    "plugin-has-unique-names": SOUND
    + """
@harness.hookimpl
def harness_metrics():
    yield harness.Metric(name="accuracy", objective="classification", function="math:fsum", higher_is_better=True,
                         summary="")
""",
    "plugin-declares-its-api": SOUND.replace("HARNESS_API_VERSION", "MY_VERSION"),
    "plugin-has-no-misspelled-attributes": SOUND
    + """
class Silent(harness.Dataset):
    name, kind, objective, summary, license = "silent", "points", "regression", "a", "CC0-1.0"
    tasks_options = {}
    def load(self, options): ...

@harness.hookimpl
def harness_datasets():
    yield Silent()
""",
    "plugin-imports-nothing-heavy": "import decimal, numpy\n" + SOUND,
    "plugin-imports-quickly": "import time; time.sleep(0.06)\n" + SOUND,
}


@pytest.mark.parametrize("rule", ["", *RULE_NAMES["plugin"]])
def test_faulty_plugin_breaks_one_rule(rule: str, tmp_path: Path) -> None:
    path = tmp_path / f"whole_{rule.replace('-', '_')}.py"
    path.write_text(textwrap.dedent(WHOLE.get(rule, SOUND)))
    catalog = discover([str(path)])
    (ref,) = [
        known.ref for group in (catalog.plugins, catalog.failures) for known in group if known.ref.value == str(path)
    ]
    try:
        findings = broken(list(check_plugin(ref, catalog)))
    finally:
        sys.modules.pop(path.stem, None)
    others = {
        "plugin-imports-nothing-heavy": "plugin-imports-quickly",
        "plugin-has-no-misspelled-attributes": "dataset-loads",
    }
    assert set(findings) - {others.get(rule)} == ({rule} if rule else set())


def test_session_without_methods_lists_the_methods_to_write(faults: ModuleType, catalog: Catalog) -> None:
    unfinished = type("Unfinished", (harness.Session,), {"__init__": lambda self, request: None})
    findings = list(apply_rules(put(catalog, "backend", faults.opening(unfinished)), catalog))
    opens = next(finding for finding in findings if finding.rule == "backend-opens")
    methods = "fetch, get_weights, gradients, predict, set_weights, synchronize, train_step"
    assert opens.fix == f"write the methods {methods} of Unfinished"
    assert "an abstract method is not implemented" in opens.seen


def test_network_of_a_backend_that_is_not_installed_is_not_checked(catalog: Catalog) -> None:
    ref = harness.NetworkRef(model="toy", backend="elsewhere", build="harness_toy:build")
    catalog.networks["toy", "elsewhere"] = Provided(ref, TOY_REF)
    findings = check(Subject("network", "toy/elsewhere"), catalog)
    assert [finding.passed for finding in findings] == [None] * len(RULES["network"])
    assert all("unknown backend 'elsewhere'" in finding.seen for finding in findings)


def test_network_of_a_misspelled_backend_is_broken(catalog: Catalog) -> None:
    ref = harness.NetworkRef(model="toy", backend="toy-nunpy", build="harness_toy:build")
    catalog.networks["toy", "toy-nunpy"] = Provided(ref, TOY_REF)
    findings = check(Subject("network", "toy/toy-nunpy"), catalog)
    assert [finding.passed for finding in findings] == [False, *[None] * (len(RULES["network"]) - 1)]
    assert "unknown backend 'toy-nunpy'; did you mean 'toy-numpy'?" in findings[0].seen


def test_network_of_a_misspelled_model_is_broken(catalog: Catalog) -> None:
    ref = harness.NetworkRef(model="tooy", backend="toy-numpy", build="harness_toy:build")
    catalog.networks["tooy", "toy-numpy"] = Provided(ref, TOY_REF)
    findings = check(Subject("network", "tooy/toy-numpy"), catalog)
    assert [finding.passed for finding in findings] == [False, *[None] * (len(RULES["network"]) - 1)]
    assert "unknown model 'tooy'; did you mean 'toy'?" in findings[0].seen
    assert findings[0].fix == "install the plugin that provides the model, or correct NetworkRef(model=...)"


@pytest.mark.parametrize("passed", [True, False])
def test_networks_of_a_plugin_are_compared_once(
    passed: bool, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself is replaced, because it takes too long here; `tests/builtin` runs it."""
    absent = type(catalog.backend("toy-absent"))
    monkeypatch.setattr(absent, "requires", {})
    compared, texts = [], []

    def compare(subject: Subject, catalog: Catalog, progress: Any) -> Finding:
        compared.append(subject.name)
        progress("one backend")
        return Finding(rule=PARITY, subject=str(subject), passed=passed, seen="seen")

    monkeypatch.setattr(kit, "parity", compare)
    monkeypatch.setattr(kit, "check", lambda subject, catalog: [])
    findings = [each for each in check_plugin(TOY_REF, catalog, texts.append) if each.rule == PARITY]
    assert compared == ["toy/toy-numpy"]
    assert [finding.passed for finding in findings] == [passed, passed or None]
    count = len(subjects(TOY_REF, catalog))
    assert any(text.endswith(f"(1 of {count})") for text in texts)
    assert any(
        text.startswith("parity of network toy/toy-numpy (") and text.endswith(": one backend") for text in texts
    )


def test_networks_of_a_model_with_an_invalid_recipe_are_not_checked(
    faults: ModuleType, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invalid recipe is reported once, although no network of the model can be checked."""
    put(catalog, "model", faults.UnknownRecipe())
    monkeypatch.setattr(kit, "check", lambda subject, catalog: list(apply_rules(subject, catalog)))
    wanted = [Subject("model", "toy"), Subject("network", "toy/toy-numpy")]
    monkeypatch.setattr(kit, "subjects", lambda ref, catalog: wanted)
    findings = [each for each in check_plugin(TOY_REF, catalog) if not each.rule.startswith("plugin")]
    assert broken(findings) == ["model-recipes-are-valid"]
    networks = [each for each in findings if each.subject == "network toy/toy-numpy"]
    assert [each.rule for each in networks] == [*RULE_NAMES["network"], PARITY]
    assert {each.seen for each in networks} == {"the model toy violates the rule model-recipes-are-valid"}


def test_parity_with_invalid_settings_is_a_finding(faults: ModuleType, catalog: Catalog) -> None:
    """The settings of a network are invalid, for example, if the recipe of a model from another plugin is invalid."""
    catalog.backends["other"] = Provided(
        type("Other", (type(catalog.backend("toy-numpy")),), {"name": "other"})(), TOY_REF
    )
    catalog.networks["toy", "other"] = catalog.networks["toy", "toy-numpy"]
    put(catalog, "model", faults.UnknownRecipe())
    finding = kit.parity(Subject("network", "toy/toy-numpy"), catalog)
    assert (finding.rule, finding.passed) == (PARITY, False)
    assert "unknown option 'recipe.speed'" in finding.seen


@pytest.mark.parametrize(("rule", "count"), [("network-predicts-each-example", 0), (FLOPS, 1)])
def test_network_that_breaks_a_rule_is_not_compared(
    rule: str, count: int, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison would fail with the framework's error message, which does not name the cause."""
    monkeypatch.setattr(type(catalog.backend("toy-absent")), "requires", {})
    compared = []

    def compare(subject: Subject, *_: Any) -> Finding:
        compared.append(subject)
        return Finding(rule=PARITY, subject=str(subject), passed=True)

    monkeypatch.setattr(kit, "parity", compare)

    def faulty(subject: Subject, catalog: Catalog) -> list[Finding]:
        passed = subject.name != "toy/toy-absent"
        return [Finding(rule=rule, subject=str(subject), passed=passed, seen="a shape")]

    monkeypatch.setattr(kit, "check", faulty)
    findings = [each for each in check_plugin(TOY_REF, catalog) if each.rule == PARITY]
    assert len(compared) == count
    if not count:
        reason = "the network toy/toy-absent violates the rule network-predicts-each-example"
        assert {(each.passed, each.seen) for each in findings} == {(None, reason)}


def test_fix_of_an_error_message_does_not_refer_to_a_line_that_is_not_shown() -> None:
    def fails(_: Any) -> None:
        raise harness.PluginError("the loss has no gradient with respect to position")

    def crashes(_: Any) -> None:
        raise ValueError("too small")

    fixes = [Rule("a", "It works.", "unused", check).apply("network a/b", None).fix for check in (fails, crashes)]
    assert fixes == ["", "fix this line or the values that it uses"]


# ---- crashes ----------------------------------------------------------------------------------------------


def test_process_that_ends_is_a_finding(toy_path: Path, tmp_path: Path) -> None:
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
        findings = check(Subject("dataset", "dies"), discover([str(path)]))
    finally:
        sys.modules.pop("dying_plugin", None)
    assert [finding.passed for finding in findings[:3]] == [True, False, None]
    assert findings[1].rule == "dataset-loads"
    assert "exited with status 7" in findings[1].seen
    assert len(findings) == len(RULES["dataset"])


@pytest.fixture
def toy_path(monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(monkeypatch)

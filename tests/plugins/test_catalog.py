"""Tests of names in the catalog, including names that two plugins use."""

from __future__ import annotations

import msgspec
import pytest
from plugin_sources import Install, failure, metric
from sample_records import record
from toy_plugin import FAULTS_REF, TOY_REF

from harness.errors import PluginError, UnknownNameError
from harness.plugins import load
from harness.plugins.catalog import Catalog


def test_model_family_selects_its_first_variant(catalog: Catalog) -> None:
    model, variant = catalog.model("toy")
    assert (model.name, variant) == ("toy", "toy-linear")
    assert catalog.model("toy-through-origin") == (model, "toy-through-origin")


def test_refs_for_returns_only_plugins_that_the_run_needs(catalog: Catalog) -> None:
    spec = record(task="toy-regress", dataset="toy-numbers", model="toy-linear", backend="toy-numpy").spec
    assert catalog.refs_for(spec) == (TOY_REF,)
    assert set(catalog.refs_for(msgspec.structs.replace(spec, backend="toy-killed"))) == {TOY_REF, FAULTS_REF}


def test_unknown_name_lists_plugins_that_are_not_loaded(install: Install) -> None:
    ref = install("import no_such_module_anywhere\n" + metric("kappa"), distribution="harness-kappa")
    with pytest.raises(UnknownNameError) as caught:
        load([ref]).metric("kappa")
    message = str(caught.value)
    assert "unknown metric 'kappa'" in message
    assert f"plugin {ref.name!r} (harness-kappa) is not loaded" in message
    assert "No module named 'no_such_module_anywhere'" in message


def test_unknown_name_suggests_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'toy-regres'; did you mean 'toy-regress'\\?"):
        catalog.task("toy-regres")
    with pytest.raises(UnknownNameError, match="unknown dataset 'qqqq'; known: toy-colors, toy-numbers"):
        catalog.dataset("qqqq")
    with pytest.raises(UnknownNameError, match="'toy-linear'"):
        catalog.model("toy-linaer")


def test_duplicate_name_raises_with_both_distributions(install: Install) -> None:
    one = install(metric("twin"), distribution="harness-one")
    _, _, second_yield = metric("single").partition("def harness_metrics():\n")
    two = install(metric("twin") + second_yield, distribution="harness-two")
    three = install(metric("alone"))
    catalog = load([one, two, three])
    assert catalog.failures == ()
    with pytest.raises(PluginError, match=r"metric 'twin'.*harness-one.*harness-two"):
        catalog.metric("twin")
    assert "twin" not in catalog.metrics
    assert catalog.metric("single").name == "single"
    assert catalog.metric("alone").name == "alone"


MODEL = """
import harness
class M(harness.Model):
    name, summary, accepts, objectives = {name!r}, "", (), ()
    Config = harness.NoOptions
    variants = {{{variants}: {{}}, {name!r} + "-own": {{}}}}
    def parameters(self, config, info): ...
    def flops_per_sample(self, config, info): ...
@harness.hookimpl
def harness_models():
    yield M()
"""


def test_variant_of_two_families_raises(install: Install) -> None:
    one = install(MODEL.format(name="first", variants="'shared'"), distribution="harness-one")
    two = install(MODEL.format(name="second", variants="'shared'"), distribution="harness-two")
    catalog = load([one, two])
    with pytest.raises(PluginError, match=r"model 'shared'.*harness-one.*harness-two"):
        catalog.model("shared")
    assert catalog.model("first-own")[1] == "first-own"


def test_variant_with_the_name_of_another_family_raises(install: Install) -> None:
    """Without the error, the family's name would silently select the other plugin's model."""
    one = install(MODEL.format(name="first", variants="'second'"), distribution="harness-one")
    two = install(MODEL.format(name="second", variants="'second-large'"), distribution="harness-two")
    catalog = load([one, two])
    with pytest.raises(PluginError, match=r"model 'second'.*harness-one.*harness-two"):
        catalog.model("second")
    assert catalog.model("second-large")[0].name == "second"


def test_module_with_two_entry_points_loads_once(install: Install) -> None:
    ref = install(metric("once"))
    again = msgspec.structs.replace(ref, name="again")
    catalog = load([ref, again])
    assert "once" in catalog.metrics
    assert failure(catalog, again) == f"plugin {ref.name!r} provides the same module; remove one of the two plugins"

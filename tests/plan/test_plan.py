"""Tests of planning: defaults, order, overrides, and requests that are rejected before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from toy_plugin import TOY_REF

import harness
from harness.errors import CombinationError, HarnessError, PluginError, UnknownNameError, UsageError
from harness.measure.cgroup import available_cores
from harness.plan import rerun, suite
from harness.plan.expand import expand, expand_all
from harness.plan.left_out import describe, left_out
from harness.plan.overrides import combinations, own_data_overrides, parse_overrides
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog, Provided
from harness.records import SCHEMA_VERSION, Precision, Protocol, Recipe, RunSpec


def plan(catalog: Catalog, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    chosen: dict[str, Any] = {"tasks": ("toy-regress",), "backends": ("toy-numpy",), "overrides": overrides}
    return expand(Selection(**chosen | selection), catalog)


def provide(catalog: Catalog, **contributions: Any) -> None:
    """Add contributions to the catalog as if the toy plugin provided them."""
    for kind, contribution in contributions.items():
        getattr(catalog, f"{kind}s")[contribution.name] = Provided(contribution, TOY_REF)
        if kind == "model":
            catalog.variants.update(dict.fromkeys(contribution.variants, contribution.name))


# ---- selections -------------------------------------------------------------------------------------------


def test_plan_uses_defaults(catalog: Catalog) -> None:
    assert plan(catalog) == (
        RunSpec(
            task="toy-regress",
            dataset="toy-numbers",
            model="toy-linear",
            backend="toy-numpy",
            device="auto",
            precision="fp32",
            compile=False,
            seed=0,
            threads=available_cores(),
            recipe=Recipe(epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.1, momentum=0.5),
            protocol=Protocol(),
            task_options={"features": 4},
            dataset_options={"draw": 0, "examples": 160, "noise": 0.1},
            model_options={"bias": True, "init": 0.1},
        ),
    )


def test_model_family_selects_the_default_variant(catalog: Catalog) -> None:
    models = ("toy", "toy-through-origin")
    first, second = plan(catalog, models=models)
    assert (first.model, first.recipe.epochs, first.model_options["bias"]) == ("toy-linear", 3, True)
    assert (second.model, second.recipe.epochs, second.model_options["bias"]) == ("toy-through-origin", 2, False)


def test_backends_alternate_fastest(catalog: Catalog) -> None:
    specs = plan(
        catalog,
        tasks=("toy-regress", "toy-classify"),
        backends=("toy-numpy", "toy-killed"),
        seeds=(0, 1),
        devices=("cpu", "cuda"),
    )
    assert len(specs) == 16
    first = [(device, 0, backend) for device in ("cpu", "cuda") for backend in ("toy-numpy", "toy-killed")]
    second = [(device, 1, backend) for device, _, backend in reversed(first)]
    assert [(s.device, s.seed, s.backend) for s in specs[:8]] == first + second
    assert {s.task for s in specs[:8]} == {"toy-regress"}
    assert {s.task for s in specs[8:]} == {"toy-classify"}


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2), (0, 0, 1)])
@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 5])
def test_order_of_backends_is_balanced(catalog: Catalog, seeds: tuple[int, ...], repeats: int) -> None:
    """Pairs of runs start with either backend equally often (A B B A), overall and for each seed."""
    selection = Selection(
        tasks=("toy-regress",), backends=("toy-numpy", "toy-killed"), devices=("cpu",), seeds=seeds, repeat=repeats
    )
    specs = expand_all([selection], catalog)
    pairs = list(zip(specs[::2], specs[1::2], strict=True))
    assert len(pairs) == len(set(seeds)) * repeats
    for chosen in (pairs, *([pair for pair in pairs if pair[0].seed == seed] for seed in seeds)):
        assert all((first.backend != second.backend) and (first.seed == second.seed) for first, second in chosen)
        firsts = [first.backend for first, _ in chosen]
        assert abs(firsts.count("toy-numpy") - firsts.count("toy-killed")) == len(chosen) % 2


def test_order_of_repeats_is_reversed(catalog: Catalog) -> None:
    """All settings are interleaved, including those of the runs of a suite."""
    both = Selection(tasks=("toy-regress",), backends=("toy-numpy",), precisions=("fp32", "bf16"), repeat=4)
    other = Selection(tasks=("toy-classify",), backends=("toy-numpy",), repeat=2)
    specs = expand_all([both, other], catalog)
    assert [(spec.task, spec.precision) for spec in specs] == [
        *(first := [("toy-regress", "fp32"), ("toy-regress", "bf16")]),
        ("toy-classify", "fp32"),
        ("toy-classify", "fp32"),
        *reversed(first),
        *first,
        *reversed(first),
    ]
    assert expand_all([], catalog) == ()


def test_repeated_values_are_planned_once(catalog: Catalog) -> None:
    specs = plan(
        catalog, tasks=("toy-regress",) * 2, backends=("toy-numpy",) * 2, seeds=(1, 1), models=("toy", "toy-linear")
    )
    assert len(specs) == 1


def test_threads_default_to_available_cores(catalog: Catalog) -> None:
    assert plan(catalog, threads=3)[0].threads == 3
    assert 1 <= plan(catalog)[0].threads <= available_cores()


def test_backend_without_the_model_is_used_only_if_selected(catalog: Catalog) -> None:
    """Installing a backend for other models must not break ``harness run --task`` without ``--backend``."""
    from harness_toy import NumpyBackend

    class Other(NumpyBackend):
        name = "toy-other"

    provide(catalog, backend=Other())
    planned = {spec.backend for spec in plan(catalog, backends=())}
    assert "toy-numpy" in planned
    assert not {"toy-other", "toy-absent"} & planned
    with pytest.raises(
        CombinationError,
        match="no plugin implements model 'toy' for backend 'toy-other'; it is implemented for: toy",
    ):
        plan(catalog, backends=("toy-numpy", "toy-other"))


def test_keys_of_reference_results_are_unchanged() -> None:
    """The key identifies a run and must not change. Records of schema version 1 used another measurement protocol."""
    reference = Path(__file__).parents[2] / "results" / "reference"
    stored = [msgspec.json.decode(path.read_bytes()) for path in reference.glob("*/*/record.json")]
    current = [values for values in stored if values["schema_version"] == SCHEMA_VERSION]
    assert current
    for values in current:
        assert msgspec.convert(values["spec"], RunSpec).key == values["key"], values["run_id"]


# ---- overrides --------------------------------------------------------------------------------------------


def test_overrides_change_every_section(catalog: Catalog) -> None:
    (spec,) = plan(
        catalog,
        "recipe.epochs=7",
        "recipe.learning_rate=1",
        "recipe.optimizer=sgd",
        "recipe.clip_norm=null",
        "recipe.nesterov=true",
        "model.bias=false",
        "task.features=2",
        "dataset.noise=0.5",
        "protocol.window_s=1e-1",
    )
    assert spec.recipe == Recipe(
        epochs=7, batch_size=16, optimizer="sgd", learning_rate=1.0, momentum=0.5, nesterov=True
    )
    assert spec.model_options == {"bias": False, "init": 0.1}
    assert spec.task_options == {"features": 2}
    assert spec.dataset_options == {"draw": 0, "examples": 160, "noise": 0.5}
    assert spec.protocol == Protocol(window_s=0.1)


def test_later_overrides_take_precedence_and_equal_values_give_equal_keys(catalog: Catalog) -> None:
    assert plan(catalog, "recipe.epochs=7", "recipe.epochs=3") == plan(catalog)
    assert plan(catalog, "recipe.learning_rate=1")[0].key == plan(catalog, "recipe.learning_rate=1.0")[0].key


def test_parse_overrides_reads_json_or_plain_text() -> None:
    assert parse_overrides(["model.a=[1, 2]", 'model.b="3"', "model.c=x=y", "model.d=", "model.e={}", "model.f=1 2"])[
        "model"
    ] == {"a": [1, 2], "b": "3", "c": "x=y", "d": "", "e": {}, "f": "1 2"}


def test_recipe_precedence_is_user_dataset_model_task(catalog: Catalog) -> None:
    from harness_toy import ToyNumbers

    class Tuned(ToyNumbers):
        name = "tuned"
        recipes = {"toy": {"epochs": 10, "batch_size": 8}, "toy-through-origin": {"epochs": 11}}

    provide(catalog, dataset=Tuned())
    chosen = {"datasets": ("tuned",), "models": ("toy-linear", "toy-through-origin")}
    assert [(s.recipe.epochs, s.recipe.batch_size) for s in plan(catalog, **chosen)] == [(10, 8), (11, 8)]
    assert [s.recipe.epochs for s in plan(catalog, "recipe.epochs=1", **chosen)] == [1, 1]


def test_dataset_changes_task_options(catalog: Catalog) -> None:
    from harness_toy import ToyNumbers

    class Suited(ToyNumbers):
        name = "suited"
        task_options = {"toy-regress": {"features": 2}, "another": {"unknown": 1}}

    provide(catalog, dataset=Suited())
    (suited,) = plan(catalog, datasets=("suited",))
    assert suited.task_options == {"features": 2}
    (changed,) = plan(catalog, "task.features=3", datasets=("suited",))
    assert changed.task_options == {"features": 3}


def test_spec_as_json_round_trips(catalog: Catalog) -> None:
    from harness_toy import ToyLinear

    class Sizes(msgspec.Struct, frozen=True, kw_only=True):
        sizes: tuple[int, ...] = (4, 2)

    class Deep(ToyLinear):
        name, variants, Config = "toy-deep", {"toy-deep": {}}, Sizes

    provide(catalog, model=Deep())
    catalog.networks["toy-deep", "toy-numpy"] = catalog.networks["toy", "toy-numpy"]
    (spec,) = plan(catalog, models=("toy-deep",))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=RunSpec) == spec


# ---- rejected requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.epoch=3", "unknown option 'recipe.epoch'; did you mean 'recipe.epochs'?"),
        ("model.biass=3", "unknown option 'model.biass'; did you mean 'model.bias'?"),
        ("dataset.nose=1", "did you mean 'dataset.noise'?"),
        ("recipes.epochs=3", "unknown section 'recipes'; did you mean 'recipe'? (in the override 'recipes.epochs=3')"),
        ("seed.x=3", "unknown section 'seed'"),
        ("model.a.b=3", "unknown option 'model.a.b'"),
        ("recipe.epochs", "invalid override 'recipe.epochs'; write it as section.key=value"),
        ("epochs=3", "invalid override 'epochs=3'"),
        ("recipe.=3", "invalid override"),
        ("=", "invalid override"),
        ("", "invalid override"),
        ("model.bias=\udcff", "invalid override"),
        ("model.bias=" + "[" * 10**5, "invalid override"),
        ("recipe.epochs=three", "invalid value in section 'recipe': Expected `int`, got `str` - at `recipe.epochs`"),
        ('recipe.epochs="3"', "Expected `int`, got `str`"),
        ("recipe.epochs=2.5", "recipe.epochs"),
        ("recipe.epochs=true", "recipe.epochs"),
        ("recipe.epochs=null", "recipe.epochs"),
        ("recipe.epochs=", "recipe.epochs"),
        ("recipe.epochs=0", "epochs and batch_size must be at least 1"),
        ("recipe.learning_rate=NaN", "invalid value of recipe.learning_rate: NaN; pass a finite number"),
        ("recipe.learning_rate=-inf", "invalid value of recipe.learning_rate: -inf; pass a finite number"),
        ("recipe.learning_rate=1e400", "invalid value of recipe.learning_rate: 1e400; pass a finite number"),
        ("recipe.ema_decay=nan", "invalid value of recipe.ema_decay: nan; pass a finite number"),
        ("recipe.class_weights=[1,nan,1e400]", "recipe.class_weights: [1,nan,1e400]; pass a finite number"),
        ("recipe.epochs=1e400", "invalid value of recipe.epochs: 1e400; pass a finite number"),
        ("dataset.noise=infinity", "invalid value of dataset.noise: infinity; pass a finite number"),
        ("protocol.window_s=nan", "invalid value of protocol.window_s: nan; pass a finite number"),
        ("recipe.optimizer=nan", "unknown recipe.optimizer 'nan'"),
        (
            "recipe.epochs=9223372036854775808",
            "recipe.epochs: 9223372036854775808 is too large; pass an integer between",
        ),
        (
            "dataset.examples=-99999999999999999999",
            "dataset.examples: -99999999999999999999 is too large; pass an integer",
        ),
        ("recipe.frozen=[99999999999999999999]", "recipe.frozen: 99999999999999999999 is too large"),
        *(
            (f"recipe.{name}=2147483648", f"{name} must be at most 2147483647, got 2147483648")
            for name in ("epochs", "batch_size", "accumulation_steps", "early_stopping", "max_steps", "step_size")
        ),
        ("recipe.plateau_patience=9999999999", "plateau_patience must be at most 2147483647"),
        ("recipe.milestones=[1,9999999999]", "milestones must be at most 2147483647"),
        ("recipe.optimizer=adamm", "unknown recipe.optimizer 'adamm'; did you mean 'adam"),
        ("recipe.clip_norm=0", "clip_norm must be positive"),
        ("protocol.throughput_budget_s=0", "throughput_budget_s"),
        ("protocol.min_steady_s=long", "Expected `float`, got `str` - at `protocol.min_steady_s`"),
        ("protocol.steady_s=1", "unknown option 'protocol.steady_s'; did you mean 'protocol.min_steady_s'?"),
        ("model.bias=[1]", "model.bias"),
        ("task.features=[]", "task.features"),
        ("recipe.dropout=0.5", "model 'toy-linear' has no dropout"),
    ],
)
def test_wrong_override_raises(override: str, message: str, catalog: Catalog) -> None:
    with pytest.raises(UsageError) as caught:
        plan(catalog, override)
    assert message in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"tasks": ("toy-regres",)}, "unknown task 'toy-regres'; did you mean 'toy-regress'?"),
        ({"tasks": ()}, "no task given; select one of: toy-classify, toy-regress"),
        ({"backends": ("toy-numpi",)}, "unknown backend 'toy-numpi'; did you mean 'toy-numpy'?"),
        ({"datasets": ("toy-number",)}, "did you mean 'toy-numbers'?"),
        ({"models": ("toy-linaer",)}, "did you mean 'toy-linear'?"),
        ({"precisions": ("fp23",)}, "unknown precision 'fp23'; did you mean 'fp32'?"),
        ({"precisions": ("FP32",)}, "unknown precision 'FP32'"),
        ({"protocol": "qick"}, "unknown protocol 'qick'; did you mean 'quick'?"),
        ({"repeat": 0}, "repeat must be at least 1, got 0"),
        ({"devices": ("gpu",)}, "unknown device 'gpu'"),
        ({"devices": ("cuda:",)}, "unknown device 'cuda:'"),
        ({"devices": ("cuda:x",)}, "unknown device 'cuda:x'; did you mean 'cuda"),
        ({"devices": ("cpu:0",)}, "unknown device 'cpu:0'"),
        ({"devices": ("auto:1",)}, "unknown device"),
        ({"devices": ("",)}, "unknown device ''"),
        ({"threads": 0}, "threads must be between 1 and 1024, got 0"),
        ({"threads": -2}, "threads must be between 1 and 1024"),
        ({"threads": 1025}, "threads must be between 1 and 1024, got 1025"),
        ({"seeds": (-1,)}, "seeds must be between 0 and 4294967295"),
        ({"seeds": (2**32,)}, "seeds must be between 0 and 4294967295"),
        ({"backends": ("toy-absent",)}, "no_such_framework is not installed; run: pip install no-such-framework"),
        ({"metric": "f1_macr"}, "unknown metric 'f1_macr'; did you mean 'f1_macro'?"),
        (
            {"metric": "f1_macro"},
            "metric 'f1_macro' (classification) cannot be used with task 'toy-regress' (regression); choose one of: ",
        ),
        ({"datasets": ("toy-colors",)}, "dataset 'toy-colors' (points, classification) cannot be used with task"),
    ],
)
def test_wrong_selection_raises(selection: dict[str, Any], message: str, catalog: Catalog) -> None:
    with pytest.raises(UsageError) as caught:
        plan(catalog, **selection)
    assert message in str(caught.value)


def test_metric_is_part_of_the_key_unless_it_is_that_of_the_task(catalog: Catalog) -> None:
    default, same, other = (plan(catalog, metric=name)[0] for name in (None, "rmse", "mae"))
    assert (default.metric, same, other.metric) == ("", default, "mae")
    assert other.key != default.key
    assert rerun.selection(other, catalog).metric == "mae"


def test_options_of_data_files_with_a_named_dataset_raise(catalog: Catalog) -> None:
    with pytest.raises(
        UsageError, match=r"'toy-numbers' does not support dataset\.slice_columns, because these options apply only to"
    ):
        plan(catalog, 'dataset.slice_columns=["a"]')


def test_one_unknown_name_among_known_names_raises(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError):
        plan(catalog, tasks=("toy-regress", "nope"), seeds=tuple(range(100)))


def test_every_device_and_precision_is_planned(catalog: Catalog) -> None:
    devices = ("auto", "cpu", "cuda", "cuda:0", "cuda:13")
    precisions = set(get_args(Precision)) - {"int8"}  # only for inference
    specs = plan(catalog, devices=devices, precisions=tuple(precisions))
    assert {(s.device, s.precision) for s in specs} == {(d, p) for d in devices for p in precisions}


def test_model_for_other_data_raises(catalog: Catalog) -> None:
    from harness_toy import ToyLinear

    class Images(ToyLinear):
        name, variants, accepts = "images", {"images-small": {}}, ("image",)

    class Classifier(ToyLinear):
        name, variants, objectives = "classifier", {"classifier": {}}, ("classification",)

    provide(catalog, model=Images())
    provide(catalog, model=Classifier())
    with pytest.raises(
        CombinationError, match=r"model 'images-small' \(accepts image; .*default model is 'toy-linear'"
    ):
        plan(catalog, models=("images",))
    with pytest.raises(CombinationError, match=r"model 'classifier'"):
        plan(catalog, models=("classifier",))


def test_dataset_of_another_kind_raises(catalog: Catalog) -> None:
    from harness_toy import ToyNumbers

    class Sounds(ToyNumbers):
        name, kind = "sounds", "audio"

    provide(catalog, dataset=Sounds())
    with pytest.raises(CombinationError, match=r"'sounds' \(audio, regression\).*default dataset is 'toy-numbers'"):
        plan(catalog, datasets=("sounds",))


def test_dataset_with_missing_requirement_raises(catalog: Catalog) -> None:
    from harness_toy import ToyNumbers

    class Archive(ToyNumbers):
        name, requires = "archive", {"no_such_reader": "pip install reader"}

    provide(catalog, dataset=Archive())
    with pytest.raises(UsageError, match=r"'archive' is not available: .*run: pip install reader"):
        plan(catalog, datasets=("archive",))


def test_metric_without_implementation_raises(catalog: Catalog) -> None:
    from harness_toy import ToyRegression

    class Odd(ToyRegression):
        name, metrics = "odd", ("rmse", "r3")

    provide(catalog, task=Odd())
    with pytest.raises(UsageError, match="task 'odd': unknown metric 'r3'"):
        plan(catalog, tasks=("odd",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_dataset": "toy-lines"}, "task 'odd': unknown dataset 'toy-lines'"),
        ({"default_model": "toy-liner"}, "task 'odd': unknown model 'toy-liner'"),
    ],
)
def test_unknown_default_of_a_task_names_the_task(catalog: Catalog, changes: dict[str, str], message: str) -> None:
    from harness_toy import ToyRegression

    provide(catalog, task=type("Odd", (ToyRegression,), {"name": "odd", **changes})())
    with pytest.raises(UsageError, match=message):
        plan(catalog, tasks=("odd",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": {"toy-linear": {"lr": 0.1}}}, "model 'toy': unknown option 'recipe.lr'"),
        ({"variants": {"toy-linear": {"widht": 2}}}, "model 'toy-linear': unknown option 'model.widht'"),
    ],
)
def test_invalid_setting_of_a_model_names_the_model(catalog: Catalog, changes: dict[str, Any], message: str) -> None:
    from harness_toy import ToyLinear

    provide(catalog, model=type("Odd", (ToyLinear,), {"variants": {"toy-linear": {}}, **changes})())
    with pytest.raises(UsageError, match=message):
        plan(catalog, models=("toy-linear",))


def test_dropout_of_the_recipe_is_ignored_for_a_model_without_dropout(catalog: Catalog) -> None:
    from harness_toy import ToyLinear, ToyRegression

    class Dropping(ToyRegression):
        name, recipe = "dropping", Recipe(optimizer="sgd", dropout=0.1)

    class WithDropout(ToyLinear):
        name, variants, has_dropout = "with-dropout", {"with-dropout": {}}, True

    provide(catalog, task=Dropping(), model=WithDropout())
    catalog.networks["with-dropout", "toy-numpy"] = catalog.networks["toy", "toy-numpy"]
    assert plan(catalog, tasks=("dropping",))[0].recipe.dropout == 0
    assert plan(catalog, "recipe.dropout=0", tasks=("dropping",))[0].recipe.dropout == 0
    chosen = {"tasks": ("dropping",), "models": ("with-dropout",)}
    assert plan(catalog, **chosen)[0].recipe.dropout == 0.1
    assert plan(catalog, "recipe.dropout=0.3", **chosen)[0].recipe.dropout == 0.3


@pytest.mark.parametrize("owner", ["model", "dataset"])
def test_dropout_that_is_declared_for_a_model_without_dropout_raises(owner: str, catalog: Catalog) -> None:
    from harness_toy import ToyLinear, ToyNumbers

    recipes = {"toy-linear": {"dropout": 0.1}}
    if owner == "model":
        provide(catalog, model=type("Forgetful", (ToyLinear,), {"recipes": recipes})())
    else:
        catalog.datasets["toy-numbers"] = Provided(type("Own", (ToyNumbers,), {"recipes": recipes})(), TOY_REF)
    chosen = {"tasks": ("toy-regress",), "models": ("toy-linear",)}
    with pytest.raises(
        UsageError, match=rf"{owner} 'toy[^']*': the recipe sets dropout to 0\.1, .* has_dropout = True"
    ):
        plan(catalog, **chosen)
    assert plan(catalog, "recipe.dropout=0", **chosen)[0].recipe.dropout == 0


def test_no_available_backend_raises(catalog: Catalog) -> None:
    for name in set(catalog.backends) - {"toy-absent"}:
        del catalog.backends[name]
    with pytest.raises(UsageError, match=r"no backend is available\n  toy-absent: .*pip install no-such-framework"):
        plan(catalog, backends=())
    catalog.backends.clear()
    with pytest.raises(UsageError, match="no backend is available; none is installed"):
        plan(catalog, backends=())


def test_no_backend_with_the_model_raises(catalog: Catalog) -> None:
    catalog.networks.clear()
    with pytest.raises(CombinationError, match="implements model 'toy'; no plugin implements it"):
        plan(catalog, backends=())


class _AtOnce(harness.Backend):
    """A backend that does not train in steps and has its own default model."""

    name, requires, trains_by_steps, default_models = "at-once", {}, False, ("ill-suited", "median")

    def devices(self) -> list[harness.DeviceInfo]:
        return []

    def open(self, request: harness.SessionRequest) -> harness.Session:
        raise harness.UnsupportedError("not today")


@pytest.fixture
def at_once(catalog: Catalog) -> Catalog:
    from harness_toy import ToyLinear

    provide(catalog, backend=_AtOnce())
    for name, accepts in (("median", ("features",)), ("ill-suited", ("tokens",))):
        kind = type(name, (ToyLinear,), {"name": name, "accepts": accepts, "variants": {name: {}}})
        provide(catalog, model=kind())
        ref = harness.NetworkRef(model=name, backend="at-once", build="nowhere:build")
        catalog.networks[name, "at-once"] = Provided(ref, TOY_REF)
    return catalog


def test_backend_without_the_default_model_trains_its_own(at_once: Catalog) -> None:
    changes = ("model.bias=false", "recipe.epochs=7", "recipe.batch_size=9", "task.features=2")
    one, other = plan(at_once, *changes, backends=("toy-numpy", "at-once"))
    assert (one.model, one.model_options["bias"], one.recipe.epochs) == ("toy-linear", False, 7)
    assert (other.model, other.model_options["bias"], other.recipe.epochs) == ("median", True, 1)
    assert one.recipe.batch_size == other.recipe.batch_size == 9
    assert one.task_options == other.task_options == {"features": 2}


def test_overrides_apply_to_the_backends_own_model_if_it_is_the_only_backend(at_once: Catalog) -> None:
    (spec,) = plan(at_once, "model.bias=false", backends=("at-once",))
    assert (spec.model, spec.model_options["bias"]) == ("median", False)
    with pytest.raises(UnknownNameError, match=r"model\.nonsense"):
        plan(at_once, "model.nonsense=1", backends=("at-once",))
    with pytest.raises(CombinationError, match=r"does not use recipe\.epochs"):
        plan(at_once, "recipe.epochs=3", backends=("at-once",))


def test_backend_that_is_not_selected_does_not_train_its_own_model(at_once: Catalog) -> None:
    assert "at-once" not in {spec.backend for spec in plan(at_once, backends=())}
    for typed, shown in (("toy", "toy-linear"), ("toy-through-origin", "toy-through-origin")):
        with pytest.raises(CombinationError) as caught:
            plan(at_once, backends=("toy-numpy", "at-once"), models=(typed,))
        start, _, end = str(caught.value).partition("; it is implemented for: ")
        assert start == f"no plugin implements model '{shown}' (family 'toy') for backend 'at-once'"
        assert end.partition("; ")[2] == (
            "select only these backends, or another model; without --model, backend 'at-once' trains its own default "
            "model"
        )


def test_backend_whose_default_models_do_not_suit_the_task_lists_them(
    at_once: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_AtOnce, "default_models", ("ill-suited",))
    with pytest.raises(CombinationError) as caught:
        plan(at_once, backends=("at-once",))
    assert "does not implement the default model 'toy' of task 'toy-" in str(caught.value)
    assert "its own default models (ill-suited) cannot be used with this task (features, " in str(caught.value)
    with pytest.raises(CombinationError) as caught:
        plan(at_once, backends=("at-once",), models=("toy",))
    assert "without --model" not in str(caught.value)


def test_backend_with_a_misspelled_default_model_is_named(at_once: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_AtOnce, "default_models", ("medain",))
    assert left_out(plan(at_once, backends=()), at_once)["at-once"] == "does not implement toy-linear"
    with pytest.raises(PluginError, match=r"^Backend.default_models of backend 'at-once': unknown model 'medain'; did"):
        plan(at_once, backends=("at-once",))


def test_network_of_a_misspelled_model_is_named(at_once: Catalog) -> None:
    at_once.networks["medain", "at-once"] = at_once.networks.pop(("median", "at-once"))
    with pytest.raises(CombinationError, match=r"a network for the unknown model 'medain'; did you mean 'median'\?"):
        plan(at_once, backends=("at-once",))


def test_left_out_backends_have_reasons(at_once: Catalog) -> None:
    reasons = left_out(plan(at_once, backends=()), at_once)
    assert reasons["at-once"] == "does not implement toy-linear; --backend at-once trains median"
    assert reasons["toy-absent"].endswith("pip install no-such-framework")
    assert "toy-numpy" not in reasons
    assert describe({"a": "b", "c": "d"}) == "Backends that are not used: a (b), c (d)"


def test_backend_without_steps_rejects_recipe_overrides(at_once: Catalog) -> None:
    with pytest.raises(
        CombinationError,
        match=r"'at-once' does not train in steps and does not use recipe.epochs; remove this override",
    ):
        plan(at_once, "recipe.epochs=2", backends=("at-once",), models=("median",))


def test_network_of_two_plugins_raises(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness_toy

    def networks() -> list[harness.NetworkRef]:
        return [harness.NetworkRef(model="toy", backend="toy-numpy", build="harness_toy:build")] * 2

    monkeypatch.setattr(harness_toy, "harness_networks", harness.hookimpl(networks))
    twice = load([TOY_REF])
    assert twice.failures == ()
    with pytest.raises(HarnessError, match=r"network 'toy/toy-numpy' is provided more than once.*harness-toy"):
        plan(twice)


def test_selecting_a_contested_name_raises(catalog: Catalog) -> None:
    catalog.conflicts["task", "contested"] = "two want it"
    with pytest.raises(PluginError, match="two want it"):
        plan(catalog, tasks=("contested",))


# ---- published splits -------------------------------------------------------------------------------------


class SplitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    split: int = 0


class Folded(harness.Dataset):
    name = "folded"
    kind = "points"
    objective = "regression"
    Options = SplitOptions
    splits = (0, 1, 2)

    def load(self, options: SplitOptions) -> harness.RawData:
        raise harness.DataError("not today")


def test_each_published_split_is_a_run(catalog: Catalog) -> None:
    provide(catalog, dataset=Folded())
    folded = {"datasets": ("folded",), "backends": ("toy-numpy", "toy-killed")}
    specs = plan(catalog, **folded, splits="all")
    assert [(s.split, s.backend) for s in specs[:3]] == [(0, "toy-numpy"), (0, "toy-killed"), (1, "toy-killed")]
    assert len({spec.key for spec in specs}) == 6
    assert len({spec.group_key for spec in specs}) == 2  # one per backend
    assert [spec.split for spec in plan(catalog, datasets=("folded",), splits=(2, 0))] == [2, 0]
    assert [spec.split for spec in plan(catalog, "dataset.split=1", datasets=("folded",))] == [1]
    assert plan(catalog)[0].split is None


@pytest.mark.parametrize(
    "chosen",
    [{(0, 1), (1, 2)}, {(0, 1), (0, 2), (1, 1), (1, 2)}, {(0, 1), (0, 2), (1, 1)}, {(5, 2)}],
)
def test_suite_has_no_other_combination_of_seeds_and_splits(
    catalog: Catalog, chosen: set[tuple[int, int]], tmp_path: Path
) -> None:
    provide(catalog, dataset=Folded())
    specs = [
        spec
        for seed, split in sorted(chosen)
        for spec in plan(catalog, datasets=("folded",), seeds=(seed,), splits=(split,), backends=("toy-numpy",))
    ]
    path = tmp_path / "suite.toml"
    path.write_text(rerun.suite(specs, catalog))
    assert {(spec.seed, spec.split) for spec in expand_all(suite.load(path).selections, catalog)} == chosen


@pytest.mark.parametrize(
    ("dataset", "splits", "message"),
    [
        ("folded", (3,), "unknown split 3; dataset 'folded' has the splits 0 to 2"),
        ("toy-numbers", "all", "dataset 'toy-numbers' has no numbered splits; remove --split"),
    ],
)
def test_unknown_split_raises(catalog: Catalog, dataset: str, splits: Any, message: str) -> None:
    provide(catalog, dataset=Folded())
    with pytest.raises(UsageError, match=message):
        plan(catalog, datasets=(dataset,), splits=splits)


class Seeded(harness.Dataset):
    name = "seeded"
    kind = "points"
    objective = "regression"
    Options = harness.SeededSplit

    def load(self, options: harness.SeededSplit) -> harness.RawData:
        raise harness.DataError("not today")


def test_each_fold_of_a_dataset_without_published_splits_is_a_run(catalog: Catalog) -> None:
    provide(catalog, dataset=Seeded())
    seeded = {"datasets": ("seeded",), "backends": ("toy-numpy",)}
    specs = plan(catalog, "dataset.folds=3", "dataset.split_seed=4", **seeded)
    assert [spec.dataset_options for spec in specs] == [
        {"split_seed": 4, "folds": 3, "split": number} for number in (1, 2, 3)
    ]
    assert len({spec.group_key for spec in specs}) == 1
    assert plan(catalog, "dataset.folds=3", "dataset.split_seed=4", splits=(2,), **seeded) == (specs[1],)
    assert expand(rerun.selection(specs[1], catalog), catalog) == (specs[1],)
    (unchanged,) = plan(catalog, **seeded)
    assert unchanged.dataset_options == {"split_seed": 0}


def test_folds_of_a_dataset_with_a_published_test_split_need_a_setting(catalog: Catalog) -> None:
    provide(catalog, dataset=Folded())
    chosen = {"datasets": ("toy-numbers",), "backends": ("toy-numpy",)}
    with pytest.raises(CombinationError, match="'toy-numbers' has a published test split, and scores on other splits"):
        plan(catalog, "dataset.random_splits=2", **chosen)
    specs = plan(catalog, "dataset.random_splits=2", "dataset.pool_splits=true", **chosen)
    assert [(spec.split_title, spec.dataset_options["pool_splits"]) for spec in specs] == [
        ("random split 1/2", True),
        ("random split 2/2", True),
    ]
    with pytest.raises(CombinationError, match="'folded' has 3 published splits; pass --split all"):
        plan(catalog, "dataset.folds=2", "dataset.pool_splits=true", datasets=("folded",))


@pytest.mark.parametrize(
    ("overrides", "splits", "message"),
    [
        (("folds=3",), (4,), "unknown split 4; the 3 folds are numbered from 1 to 3"),
        (("random_splits=3",), (0,), "unknown split 0; the 3 random splits are numbered from 1 to 3"),
        (("folds=1",), (), "folds must be between 2 and 100, got 1"),
        (("folds=0",), (), "folds must be between 2 and 100, got 0"),
        (("random_splits=0",), (), "random_splits must be between 2 and 100, got 0"),
        (("folds=3", "random_splits=0"), (), "random_splits must be between 2 and 100, got 0"),
        (("folds=three",), (), "Expected `int"),
        (("split=1",), (), "dataset.split: dataset 'seeded' has no numbered splits; also pass --folds"),
        (("fold_column=x",), (), "does not support dataset.fold_column, because these options apply only to your"),
        ((), (1,), "'seeded' has no numbered splits; remove --split, or pass --folds or --random-splits"),
        (("folds=3", "split=1"), (1,), "--split and --set dataset.split both select the split"),
    ],
)
def test_unusable_folds_of_a_dataset_raise(
    catalog: Catalog, overrides: tuple[str, ...], splits: tuple[int, ...], message: str
) -> None:
    provide(catalog, dataset=Seeded())
    with pytest.raises(UsageError, match=message):
        plan(catalog, *(f"dataset.{text}" for text in overrides), datasets=("seeded",), splits=splits)


@pytest.mark.parametrize(
    ("name", "other"), [("split", "folds"), ("folds", "random_splits"), ("random_splits", "folds")]
)
def test_folds_of_a_dataset_with_an_option_of_the_same_name_raise(catalog: Catalog, name: str, other: str) -> None:
    class Clashing(Seeded):
        Options = msgspec.defstruct("Options", [(name, int, 0)], bases=(harness.SeededSplit,), frozen=True)

    provide(catalog, dataset=Clashing())
    with pytest.raises(
        CombinationError,
        match=rf"'seeded' defines dataset\.{name}, which conflicts with the options for folds and random splits",
    ):
        plan(catalog, f"dataset.{other}=3", datasets=("seeded",))


def test_pool_splits_of_a_dataset_without_published_splits_does_not_change_the_key(catalog: Catalog) -> None:
    provide(catalog, dataset=Seeded())
    plans = [
        plan(catalog, "dataset.folds=3", *more, datasets=("seeded",)) for more in ((), ("dataset.pool_splits=true",))
    ]
    assert plans[0] == plans[1]


def test_own_data_overrides_keep_zero() -> None:
    options = {"folds": 0, "random_splits": 0, "fold_column": None, "feature_columns": (), "encoding": ""}
    assert own_data_overrides(options) == ("dataset.folds=0", "dataset.random_splits=0")


def test_split_selected_twice_raises(catalog: Catalog) -> None:
    provide(catalog, dataset=Folded())
    with pytest.raises(UsageError, match=r"--split and --set dataset\.split both select the split"):
        plan(catalog, "dataset.split=1", datasets=("folded",), splits=(0,))


# ---- several values of an override ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("recipe.batch_size=16,32", [16, 32]),
        ("recipe.batch_size= 16 , 32 ", [16, 32]),
        ("recipe.optimizer=sgd,adamw", ["sgd", "adamw"]),
        ("dataset.columns=[1,2]", [[1, 2]]),
        ("dataset.columns=[1,2],[3]", [[1, 2], [3]]),
        ('dataset.column="a,b"', ["a,b"]),
        ('dataset.column="a,b","c\\",d"', ["a,b", 'c",d']),
        ("dataset.decimal=,", [","]),
        ("dataset.decimal=,,.", [",,."]),
        ("dataset.column=a,", ["a,"]),
        ("dataset.column=f(x", ["f(x"]),
        ("dataset.column=a[1,b", ["a[1,b"]),
        ("recipe.epochs=1", [1]),
    ],
)
def test_combinations_divides_values_at_commas(override: str, values: list[object]) -> None:
    section, key = override.partition("=")[0].split(".")
    assert [parse_overrides(each)[section][key] for each in combinations([override])] == values


def test_combinations_last_override_varies_fastest_and_replaces_earlier_ones() -> None:
    given = ["recipe.epochs=9", "recipe.batch_size=8,16", "recipe.epochs=1,2"]
    assert combinations(given) == [
        ("recipe.batch_size=8", "recipe.epochs=1"),
        ("recipe.batch_size=8", "recipe.epochs=2"),
        ("recipe.batch_size=16", "recipe.epochs=1"),
        ("recipe.batch_size=16", "recipe.epochs=2"),
    ]


@pytest.mark.parametrize(
    "given", [["recipe.epochs=1,1"], [f"recipe.{n}={','.join(map(str, range(99)))}" for n in "abc"]]
)
def test_combinations_rejects_equal_values_and_too_many(given: list[str]) -> None:
    with pytest.raises(UsageError, match=r"occurs twice|more than 100000 combinations"):
        combinations(given)


def test_expand_interleaves_values_of_overrides(catalog: Catalog) -> None:
    chosen = Selection(
        tasks=("toy-regress",),
        backends=("toy-numpy", "toy-chatter"),
        seeds=(0, 1),
        overrides=("recipe.batch_size=8,16",),
    )
    order = [(spec.seed, spec.recipe.batch_size, spec.backend) for spec in expand(chosen, catalog)]
    first = [(0, size, backend) for size in (8, 16) for backend in ("toy-numpy", "toy-chatter")]
    assert order == first + [(1, size, backend) for _, size, backend in reversed(first)]

"""Tests of the decision about which planned runs are executed, and of repeated commands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Invoke
from toy_plugin import FAST, SET_FAST

from harness.errors import UnknownNameError
from harness.execute import resume
from harness.execute.resume import Decision, decide, describe, failure_kinds
from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Failure, Gpu, RunRecord, RunSpec
from harness.records.store import ARRAYS, RECORD, Store, write_json

TOY = ("--task", "toy-classify", "--threads", "1", *SET_FAST)


def specs_of(catalog: Catalog, *overrides: str, **selection: Any) -> tuple[RunSpec, ...]:
    chosen: dict[str, Any] = {"tasks": ("toy-regress",), "backends": ("toy-numpy",), "threads": 1} | selection
    return expand(Selection(overrides=(*FAST, *overrides), **chosen), catalog)


@pytest.fixture
def done(catalog: Catalog, tmp_path: Path) -> tuple[Store, RunRecord]:
    """Store with one successful run."""
    store = Store(tmp_path / "results")
    (record,) = run_all(specs_of(catalog), catalog, store)
    return store, record


def changed(store: Store, record: RunRecord, **changes: Any) -> None:
    """Replace the record of the stored run."""
    write_json(store.path / record.run_id / RECORD, msgspec.structs.replace(record, **changes))


def environment(**changes: Any) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: {"environment": msgspec.structs.replace(record.environment, **changes)}


def packages(**changes: str) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: environment(packages=record.environment.packages | changes)(record)


def without_numpy(record: RunRecord) -> dict[str, Any]:
    kept = {name: version for name, version in record.environment.packages.items() if name != "numpy"}
    return environment(packages=kept)(record)


def plugin(digest: str) -> Callable[[RunRecord], dict[str, Any]]:
    def change(record: RunRecord) -> dict[str, Any]:
        refs = [msgspec.structs.replace(ref, code_digest=digest) for ref in record.provenance.plugins]
        return {"provenance": msgspec.structs.replace(record.provenance, plugins=refs)}

    return change


def failed(kind: str) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda _: {"outcome": Failure(kind=kind, message="the reason")}  # type: ignore[arg-type]


def memory(factor: float) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: environment(memory_bytes=int(record.environment.memory_bytes * factor))(record)


GPU = [Gpu(name="H200", memory_bytes=1, driver="570")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: {}, "done on"),
        (environment(load_1min=9.0, kernel="Linux 9.9 x"), "done on"),
        (environment(gpus=GPU), "done on"),  # the run used the CPU
        (memory(1.01), "done on"),
        (packages(numpy="1.0"), "numpy 1.0 -> "),
        (packages(extra="1.0"), "extra removed"),
        (without_numpy, "numpy added"),
        (environment(python="CPython 3.1"), "Python CPython 3.1 -> "),
        (environment(cpu="Z80"), "another machine: CPU Z80 -> "),
        (environment(cores=977), "another machine: cores 977 -> "),
        (environment(cpu_quota=0.25), "another machine: CPU quota 0.25 -> "),
        (environment(kernel="Darwin 24 arm64"), "another machine: system Darwin -> Linux"),
        (memory(2), "another machine: memory "),
        (plugin("0" * 64), "plugin toy changed"),
        (plugin(""), "plugin toy changed"),
        (failed("crash"), "failed before: crash"),
        (failed("interrupted"), "interrupted before"),
    ],
)
def test_decide_names_the_first_difference(
    change: Callable[[RunRecord], dict[str, Any]],
    reason: str,
    done: tuple[Store, RunRecord],
    catalog: Catalog,
) -> None:
    store, record = done
    changed(store, record, **change(record))
    (decision,) = decide(specs_of(catalog), catalog, store)
    assert decision.reason.startswith(reason)
    assert (decision.stored is not None) == (reason == "done on")


@pytest.mark.parametrize(
    "other",
    [("recipe.epochs=2",), ("recipe.learning_rate=0.01",), ("protocol.window_s=0.02",), ("recipe.batch_size=8",)],
)
def test_decide_other_settings_are_a_new_run(
    other: tuple[str, ...], done: tuple[Store, RunRecord], catalog: Catalog
) -> None:
    (spec,) = specs_of(catalog, *other)
    assert decide([spec], catalog, done[0]) == [Decision(spec, None, "")]


def test_decide_counts_repeats(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    (spec,) = specs_of(catalog)
    decisions = decide([spec, spec, spec], catalog, done[0])
    assert [decision.stored is not None for decision in decisions] == [True, False, False]


def test_decide_record_without_request_key_is_found_by_its_key(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    store, record = done
    assert record.request_key != record.key  # the planned device is auto
    changed(store, record, request_key="")
    (decision,) = decide(specs_of(catalog), catalog, store)
    assert decision.stored is not None


def test_decide_missing_arrays_weights_and_parity_are_reasons(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    store, record = done
    specs = specs_of(catalog)
    assert decide(specs, catalog, store, save_weights=True)[0].reason == "the weights were not saved"
    assert decide(specs, catalog, store, compared={specs[0].key})[0].reason == "parity was not checked"
    (store.path / record.run_id / ARRAYS).unlink()
    assert decide(specs, catalog, store)[0].reason == f"{ARRAYS} is missing"


def test_decide_damaged_record_is_a_new_run(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    store, record = done
    (store.path / record.run_id / RECORD).write_text("{")
    assert decide(specs_of(catalog), catalog, store)[0] == Decision(specs_of(catalog)[0], None, "")


@pytest.mark.parametrize(("retry", "again"), [(None, True), (("timeout",), True), (("crash", "oom"), False)])
def test_decide_retry_selects_kinds_of_failures(
    retry: tuple[Any, ...] | None, again: bool, done: tuple[Store, RunRecord], catalog: Catalog
) -> None:
    store, record = done
    changed(store, record, **failed("timeout")(record))
    (decision,) = decide(specs_of(catalog), catalog, store, retry=retry)
    assert (decision.stored is None) == again
    if again:
        assert decision.reason == "failed before: timeout"
    else:
        assert re.fullmatch(r"failed on .*: timeout", decision.reason)


def test_decide_interrupted_run_is_executed_again_with_any_retry(
    done: tuple[Store, RunRecord], catalog: Catalog
) -> None:
    store, record = done
    changed(store, record, **failed("interrupted")(record))
    (decision,) = decide(specs_of(catalog), catalog, store, retry=("crash",))
    assert (decision.stored, decision.reason) == (None, "interrupted before")


def test_decide_gpu_run_compares_gpus_and_driver(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    store, record = done
    on_gpu = msgspec.structs.replace(record.spec, device="cuda:0")
    changed(store, record, spec=on_gpu, key=on_gpu.key, **environment(gpus=GPU)(record))
    (decision,) = decide(specs_of(catalog), catalog, store)
    assert decision.reason.startswith("another machine: GPUs H200 -> ")


def test_describe_many_runs_are_counted_by_reason(done: tuple[Store, RunRecord], catalog: Catalog) -> None:
    store, _ = done
    (decision,) = decide(specs_of(catalog), catalog, store)
    (line,) = describe([decision])
    assert line.startswith("skip: toy-regress · toy-linear · toy-numpy · seed 0: done on ")
    assert describe([decision] * (resume.MAX_LINES + 1)) == [f"skip 21 runs: {decision.reason}"]


def test_failure_kinds_unknown_name_is_rejected() -> None:
    assert failure_kinds(["crash"]) == ("crash",)
    with pytest.raises(UnknownNameError, match="did you mean 'timeout'"):
        failure_kinds(["timeouts"])


def test_repeated_command_executes_only_what_is_missing(invoke: Invoke, tmp_path: Path) -> None:
    command = ("run", *TOY, "--backend", "toy-numpy")
    assert invoke(*command, "--seed", "0").exit_code == 0
    more = invoke(*command, "--seed", "0,1")
    assert more.exit_code == 0
    assert "skip: toy-classify · toy-linear · toy-numpy · seed 0: done on" in more.stderr
    assert "Saved 1 run to results/; 1 run skipped (use --rerun to repeat)" in more.stderr
    assert "· 2 seeds ·" in more.stdout
    again = invoke(*command, "--seed", "0,1")
    assert again.exit_code == 0
    assert "Saved 0 runs" in again.stderr
    assert again.stdout == more.stdout
    assert len(list((tmp_path / "results").glob("[!.]*"))) == 2
    shutil.rmtree(next((tmp_path / "results").glob("*-s1-*")))
    assert invoke(*command, "--seed", "0,1", "--rerun").exit_code == 0
    assert len(list((tmp_path / "results").glob("[!.]*"))) == 3


def test_repeated_command_runs_failed_runs_again(invoke: Invoke) -> None:
    command = ("run", *TOY, "--backend", "toy-segfault")
    assert invoke(*command).exit_code == 1
    again = invoke(*command)
    assert again.exit_code == 1
    assert "redo: toy-classify · toy-linear · toy-segfault · seed 0: failed before: crash" in again.stderr
    kept = invoke(*command, "--retry", "timeout")
    assert kept.exit_code == 1
    assert "Saved 0 runs" in kept.stderr
    assert "failed: crash" in kept.stdout


def suite_file(folder: Path, *, budget_hours: float = 1, **keys: str) -> str:
    """Write a suite of quick toy runs with two seeds, and return its name. `keys` are additional keys of its entry."""
    entry = {"task": '"toy-classify"', "backend": '"toy-numpy"', "threads": "1", "seed": "[0, 1]"} | keys
    entry["set"] = f"{{ {', '.join(FAST)} }}"
    lines = [f"budget_hours = {budget_hours}", "[[run]]", *(f"{key} = {value}" for key, value in entry.items())]
    (folder / "suite.toml").write_text("\n".join(lines))
    return "suite.toml"


def test_time_budget_ends_before_the_remaining_runs(invoke: Invoke, tmp_path: Path) -> None:
    command = ("run", "--suite", suite_file(tmp_path, budget_hours=1e-6))
    first = invoke(*command)
    assert first.exit_code == 1
    assert "the time budget is used up; 1 run was not executed; repeat the command to continue" in first.stderr
    assert "Saved 1 run to results/" in first.stderr
    plan = invoke(*command, "--dry-run")
    assert "the time budget of 0:00 is too short for all runs" in plan.stdout
    second = invoke(*command)
    assert second.exit_code == 0
    assert "Saved 1 run to results/; 1 run skipped" in second.stderr


def test_unavailable_runs_are_listed_refused_or_skipped(invoke: Invoke, tmp_path: Path) -> None:
    suite = suite_file(
        tmp_path,
        backend='["toy-numpy", "toy-absent"]',
        include='[{ backend = "toy-numpy", device = "cuda" }, { backend = "toy-numpy", precision = "bf16", seed = 5 }]',
    )
    plan = invoke("run", "--suite", suite, "--dry-run")
    assert plan.exit_code == 0, plan.output
    reasons = [
        "2 runs: backend 'toy-absent' is not available: ",
        "2 runs: backend 'toy-numpy' finds no device 'cuda' on this machine; available devices: cpu",
        "1 run: backend 'toy-numpy' cannot compute in bf16 on cpu",
    ]
    assert all(f"\n  {reason}" in plan.stdout for reason in reasons), plan.stdout
    assert "7 runs planned, 5 unavailable on this machine; none was started" in plan.stdout
    assert [line.split()[-1] for line in plan.stdout.splitlines() if "toy-absent" in line][:2] == ["unavailable"] * 2
    refused = invoke("run", "--suite", suite)
    assert refused.exit_code == 2
    assert all(reason in refused.stderr for reason in (*reasons, "pass --skip-unavailable")), refused.stderr
    assert not (tmp_path / "results").exists()
    kept = invoke("run", "--suite", suite, "--skip-unavailable")
    assert kept.exit_code == 0
    assert all(f"unavailable: {reason}" in kept.stderr for reason in reasons), kept.stderr
    assert "Saved 2 runs to results/" in kept.stderr


def test_dry_run_shows_the_state_of_each_run(invoke: Invoke) -> None:
    command = ("run", *TOY, "--backend", "toy-numpy")
    assert invoke(*command, "--seed", "0").exit_code == 0
    plan = invoke(*command, "--seed", "0,1", "--dry-run")
    rows = [line.split() for line in plan.stdout.splitlines()]
    assert [row[-1] for row in rows if "toy-numpy" in row] == ["skip", "run"]
    assert rows[0][:8] == ["all", "runs:", "device", "auto,", "precision", "fp32,", "compile", "False,"]
    assert ["task", "dataset", "model", "backend", "seed", "key", "time", "state"] in rows
    assert "2 runs planned, 1 of them already done; none was started" in plan.stdout
    assert "skip: toy-classify · toy-linear · toy-numpy · seed 0: done on" in plan.stderr


def test_dry_run_counts_failed_runs_separately_and_names_varying_settings(invoke: Invoke) -> None:
    command = ("run", *TOY, "--backend", "toy-segfault", "--set", "recipe.batch_size=8,16")
    assert invoke(*command).exit_code == 1
    plan = invoke(*command, "--retry", "oom", "--dry-run")
    assert "2 runs planned, 2 failed before; none was started" in plan.stdout
    lines = [line for line in plan.stderr.splitlines() if line.startswith("skip: ")]
    settings = [re.search(r" · seed 0 · (recipe.batch_size=\d+): failed on .*: crash ", line) for line in lines]
    assert [found and found[1] for found in settings] == ["recipe.batch_size=8", "recipe.batch_size=16"]

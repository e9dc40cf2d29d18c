"""Tests of rooflines: measurement, storage, look-up, and the table columns that depend on them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import Invoke
from sample_records import ENVIRONMENT, record, success

from harness.analysis.comparison_table import build_table
from harness.checks import roofline as roofline_module
from harness.checks.roofline import rate
from harness.data.cache import cache_dir
from harness.measure import stats
from harness.measure.roofline import lookup, save
from harness.records import Gpu, Roofline
from harness.report.text import render

PACKAGES = ("numpy",)


def made(**changes: Any) -> Roofline:
    values: dict[str, Any] = {
        "backend": "torch",
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "hardware": ENVIRONMENT.cpu,
        "versions": {"numpy": "2.4.6"},
        "matrix_flops_per_s": 1e10,
        "copy_bytes_per_s": 2e9,
        "measured_at": "2026-01-01T00:00:00+00:00",
    }
    return Roofline(**values | changes)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def test_saved_roofline_is_found() -> None:
    save(made())
    assert lookup(record(), PACKAGES) == made()
    save(made(matrix_flops_per_s=3e10))
    assert lookup(record(), PACKAGES) == made(matrix_flops_per_s=3e10)
    assert [path.suffix for path in (cache_dir() / "rooflines").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "tensorflow"},
        {"device": "cuda:0"},
        {"precision": "bf16"},
        {"threads": 2},
        {"hardware": "Another CPU"},
        {"versions": {"numpy": "2.4.7"}},
    ],
)
def test_roofline_of_another_device_setting_or_version_is_not_found(changes: dict[str, Any]) -> None:
    save(made(**changes))
    assert lookup(record(), PACKAGES) is None


def test_damaged_roofline_file_is_ignored() -> None:
    save(made())
    (file,) = (cache_dir() / "rooflines").iterdir()
    file.write_text("{")
    assert lookup(record(), PACKAGES) is None


def test_rate_is_the_median_of_the_windows_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(roofline_module, "time", clock)
    calls = iter(range(10**6))

    def work() -> None:
        clock.now += 0.5 if next(calls) < 3 else 0.01

    assert rate(work, lambda: None, window_s=0.2) == pytest.approx(100)


def test_command_measures_through_the_backend(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's kernels sleep as if it computed at 1 TFLOP/s and copied at 100 GB/s. A sleep lasts at least as long as
    requested, so the measured rates cannot be too high."""
    monkeypatch.setenv("TOY_FLOPS", "1e12")
    monkeypatch.setattr(roofline_module, "LIMIT_S", 60.0)
    found = invoke("doctor", "--roofline", "--backend", "toy-numpy", "--threads", "1", "--format", "json")
    assert found.exit_code == 0, found.output
    (roofline,) = msgspec.json.decode(found.stdout, type=list[Roofline])
    assert (roofline.backend, roofline.device, roofline.precision, roofline.threads) == ("toy-numpy", "cpu", "fp32", 1)
    assert 0.5e12 < roofline.matrix_flops_per_s <= 1e12
    assert 0.5e11 < roofline.copy_bytes_per_s <= 1e11
    assert len(list((cache_dir() / "rooflines").iterdir())) == 1


def test_backend_without_kernels_has_no_roofline(invoke: Invoke) -> None:
    assert "TOY_FLOPS" not in os.environ
    found = invoke("doctor", "--roofline", "--backend", "toy-numpy", "--threads", "1", "--format", "json")
    assert (found.exit_code, json.loads(found.stdout)) == (1, [])


def test_options_that_require_roofline_are_refused_without_it(invoke: Invoke) -> None:
    found = invoke("doctor", "--threads", "1")
    assert found.exit_code == 2
    assert "can only be used with --roofline" in found.stderr


def test_table_shows_the_percentage_of_the_roofline() -> None:
    run = record(success())  # 1.25e9 FLOP/s
    (row,) = build_table([msgspec.structs.replace(run, roofline=made())]).rows
    assert row.cells["mfu_percent"].value == pytest.approx(12.5)
    (row,) = build_table([run]).rows
    assert row.cells["mfu_percent"].value is None


def test_table_shows_the_cost_of_a_million_samples() -> None:
    runs = [record(success(train=rate, inference=4 * rate), seed=seed) for seed, rate in enumerate((900.0, 1100.0))]
    (row,) = build_table(runs, price_per_hour=3.6).rows
    cells = row.cells
    costs = [1e3 / 900, 1e3 / 1100]
    cost = cells["train_cost_per_million"]
    assert cost.value == pytest.approx(sum(costs) / 2)
    assert cost.ci95 == pytest.approx(stats.mean(costs).ci95)
    assert cells["inference_cost_per_million"].value == pytest.approx(sum(costs) / 8)
    assert "per 1M" in render(build_table(runs, price_per_hour=3.6))
    assert "per 1M" not in render(build_table(runs))


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("torch", marks=[pytest.mark.torch, pytest.mark.plugins("torch")]),
        pytest.param("tensorflow", marks=[pytest.mark.tensorflow, pytest.mark.plugins("tensorflow")]),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kernels_of_frameworks_compute_with_the_same_random_numbers(backend: str, precision: str) -> None:
    """A GPU with a power limit multiplies constants faster than numbers that vary."""
    from harness.plugins import discover

    chosen = discover().backend(backend)
    if precision not in next(device.precisions for device in chosen.devices() if device.name == "cpu"):
        pytest.skip(f"{backend} does not support {precision} on this CPU")
    kernels = chosen.roofline_kernels("cpu", precision, 2)
    assert kernels is not None
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((64, 64), np.float32) for _ in range(2))
    product = kernels.matrix(64)
    for _ in range(5):
        result = product()
    result = result.float().numpy() if backend == "torch" else np.asarray(result.numpy(), np.float32)
    np.testing.assert_allclose(result, a @ b, atol=1e-4 if precision == "fp32" else 0.5)
    copied = kernels.copy(400)()
    np.testing.assert_array_equal(copied.numpy(), np.random.default_rng(0).standard_normal(100, np.float32))
    kernels.synchronize()


def test_roofline_of_a_gpu_is_found_by_the_description_of_the_device_in_use() -> None:
    """`Environment.gpus` lists all GPUs, also those that CUDA_VISIBLE_DEVICES hides."""
    listed = [Gpu(name=name, memory_bytes=1, driver="570.1") for name in ("GPU A", "GPU B")]
    run = record(device="cuda:0")
    run = msgspec.structs.replace(
        run,
        environment=msgspec.structs.replace(run.environment, gpus=listed),
        provenance=msgspec.structs.replace(run.provenance, device_name="GPU B, compute capability 9.0"),
    )
    save(made(device="cuda:0", hardware="GPU B, compute capability 9.0"))
    assert lookup(run, PACKAGES) is not None
    another = msgspec.structs.replace(run.provenance, device_name="GPU A, compute capability 9.0")
    assert lookup(msgspec.structs.replace(run, provenance=another), PACKAGES) is None

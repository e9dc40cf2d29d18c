"""Tests of the choice of nodes, without Ray."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from sample_records import record
from toy_runs import toy_specs

from harness import Environment, Machine, RunSpec
from harness.plugins.catalog import Catalog
from harness.records import Gpu

pytestmark = pytest.mark.plugins("ray")

HERE = record().environment


def environment(cpu: str = "cpu A", gpus: int = 0, **changes: Any) -> Environment:
    found = [Gpu(name="gpu", memory_bytes=1, driver="1")] * gpus
    return msgspec.structs.replace(HERE, cpu=cpu, gpus=found, **changes)


def node(name: str, cpu: str = "cpu A", cpus: float = 4, gpus: int = 0, **changes: Any):  # type: ignore[no-untyped-def]
    from harness_ray.placement import Node

    machine = Machine(environment=environment(cpu, gpus, **changes), harness_digest="", plugin_digests={})
    return Node(name, name, cpus, float(gpus), machine)


@pytest.fixture
def spec(catalog: Catalog) -> RunSpec:
    return msgspec.structs.replace(toy_specs(catalog)[0], threads=2, device="cpu")


def with_device(spec: RunSpec, device: str, threads: int = 2) -> RunSpec:
    return msgspec.structs.replace(spec, device=device, threads=threads)


def test_node_executes_one_run_on_the_cpu_at_a_time(spec: RunSpec) -> None:
    one = node("a", cpus=8, gpus=2)
    assert one.is_free(spec)
    one.running["x"] = 2, False
    assert not one.is_free(spec)
    assert not one.is_free(with_device(spec, "cuda"))


def test_node_executes_one_run_per_gpu_while_cpus_are_left(spec: RunSpec) -> None:
    one, gpu = node("a", cpus=5, gpus=3), with_device(spec, "cuda")
    one.running["x"] = 2, True
    assert one.is_free(gpu)
    assert not one.is_free(spec)
    one.running["y"] = 2, True
    assert not one.is_free(gpu)
    assert one.is_free(with_device(spec, "cuda", threads=1))
    one.running["z"] = 1, True
    assert not one.is_free(with_device(spec, "cuda", threads=0))


def test_node_executes_a_run_that_may_use_the_cpu_alone(spec: RunSpec) -> None:
    """With the device ``auto``, a backend without support for GPUs uses the CPU although the run gets a GPU."""
    from harness_ray.placement import shares_node

    one, auto = node("a", cpus=8, gpus=2), with_device(spec, "auto")
    assert (one.is_free(auto), one.gets_gpu(auto)) == (True, True)
    one.running["x"] = 2, shares_node(with_device(spec, "cuda"))
    assert not one.is_free(auto)
    one.running["x"] = 2, shares_node(auto)
    assert not one.is_free(with_device(spec, "cuda"))
    assert not one.is_free(auto)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({}, ""),
        ({"packages": {**HERE.packages, "numpy": "0.1"}}, f"numpy {HERE.packages['numpy']} -> 0.1"),
        ({"packages": {**HERE.packages, "extra": "1.0"}}, "extra none -> 1.0"),
        ({"python": "3.1.0"}, f"Python {HERE.python} -> 3.1.0"),
        ({"cpu": "cpu B"}, "CPU cpu A -> cpu B"),
        ({"load_1min": 7.0}, ""),
    ],
)
def test_class_includes_the_versions_of_packages(changes: dict[str, Any], difference: str, spec: RunSpec) -> None:
    from harness_ray import placement

    old, new = node("a"), node("b", **changes)
    assert placement.difference(old.machine.environment, new.machine.environment) == difference
    assert placement.of_class([old, new], old.machine.environment) == ([old] if difference else [old, new])
    same = [old, node("c"), new]
    for order in itertools.permutations(same):
        chosen = placement.choose_class([spec], order)
        assert chosen is not None
        assert not placement.difference(old.machine.environment, chosen)


@pytest.mark.parametrize(("device", "threads", "fits"), [("cpu", 4, True), ("cpu", 5, False), ("cuda", 1, False)])
def test_node_fits_runs_within_its_resources(spec: RunSpec, device: str, threads: int, fits: bool) -> None:
    assert node("a", cpus=4).fits(with_device(spec, device, threads)) is fits


def test_class_of_a_group_has_most_nodes_in_any_order(spec: RunSpec) -> None:
    from harness_ray.placement import choose_class, of_class

    nodes = [node("a", "cpu A"), node("b", "cpu B"), node("c", "cpu B"), node("d", "cpu C"), node("e", "cpu C", cpus=1)]
    for order in itertools.permutations(nodes):
        chosen = choose_class([spec], order)
        assert chosen is not None
        assert [one.id for one in of_class(nodes, chosen)] == ["b", "c"]
    tied = [node("a", "cpu A"), node("b", "cpu B")]
    assert {choose_class([spec], order).cpu for order in itertools.permutations(tied)} == {"cpu B"}  # type: ignore[union-attr]


def test_class_has_gpus_if_runs_may_use_them(spec: RunSpec) -> None:
    from harness_ray.placement import choose_class

    nodes = [node("a"), node("b"), node("c", gpus=1)]
    chosen = [choose_class([with_device(spec, device)], nodes) for device in ("cpu", "auto", "cuda")]
    assert [len(one.gpus) for one in chosen if one] == [0, 1, 1]
    assert choose_class([with_device(spec, "cuda")], nodes[:2]) is None
    assert choose_class([with_device(spec, "cpu", threads=5)], nodes) is None


def test_run_avoids_the_node_of_a_lost_attempt_if_another_can_execute_it(spec: RunSpec) -> None:
    from harness_ray.placement import choose_node

    first, second = node("a"), node("b")
    assert choose_node(spec, [first, second], ("a",)) is second
    second.running["x"] = 1, False
    assert choose_node(spec, [first, second], ("a",)) is None
    assert choose_node(spec, [first], ("a",)) is first
    assert choose_node(with_device(spec, "cuda"), [first], ()) is None


def test_commands_that_use_the_same_cluster_do_not_all_choose_the_same_node(spec: RunSpec) -> None:
    from harness_ray.placement import choose_node

    nodes = [node("a"), node("b"), node("c")]
    chosen = [choose_node(spec, nodes, ()) for _ in range(100)]
    assert {each.id for each in chosen if each is not None} == {"a", "b", "c"}


def test_runs_on_the_same_data_and_device_form_a_group(catalog: Catalog) -> None:
    from harness_ray.placement import group_of

    specs = toy_specs(catalog, backends=("toy-numpy", "toy-remembers"), seeds=(0, 1))
    assert len(specs) == 4
    assert len(set(map(group_of, specs))) == 1
    assert len({group_of(with_device(specs[0], device)) for device in ("cpu", "cuda")}) == 2

"""Tests of CPU quotas, with the files of control groups that the tests write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.measure.cgroup import available_cores, cpu_groups, cpu_quota, quota_throttled_s

V2 = "31 23 0:28 {top} /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_V1 = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"


def machine(root: Path, mounts: str, membership: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": membership, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("mounts", "membership", "files", "quota"),
    [
        pytest.param(V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "100000 100000\n"}, 1.0, id="v2"),
        pytest.param(V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "max 100000\n"}, None, id="v2-max"),
        pytest.param(V2.format(top="/"), "0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5, id="v2-top"),
        pytest.param(
            V2.format(top="/"),
            "0::/slice/scope/inner\n",
            {
                "sys/fs/cgroup/slice/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/slice/scope/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slice/scope/inner/cpu.max": "400000 100000\n",
            },
            1.5,
            id="v2-smallest-ancestor",
        ),
        pytest.param(
            V2.format(top="/docker/abc"),
            "0::/docker/abc\n",
            {"sys/fs/cgroup/cpu.max": "100000 100000\n"},
            1.0,
            id="v2-container-without-namespace",
        ),
        pytest.param(
            V2.format(top="/"), "0::/../other\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0, id="v2-outside"
        ),
        pytest.param(
            OTHER_V1 + V1.format(top="/"),
            "5:cpuset:/elsewhere\n4:cpu,cpuacct:/box\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "25000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            0.5,
            id="v1",
        ),
        pytest.param(
            V1.format(top="/") + V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "4:cpu,cpuacct:/box\n0::/box\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/unified/box/cgroup.procs": "1\n",
            },
            3.0,
            id="hybrid",
        ),
        pytest.param(V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "garbage\n"}, None, id="garbage"),
        pytest.param("", "", {}, None, id="no-groups"),
        pytest.param(
            V2.format(top="/other").replace("/sys/fs/cgroup", "/run/other") + V2.format(top="/"),
            "0::/box\n",
            {"run/other/cpu.max": "50000 100000\n", "sys/fs/cgroup/box/cpu.max": "300000 100000\n"},
            3.0,
            id="v2-other-mount-first",
        ),
        pytest.param(
            V2.format(top="/a/b").replace("/sys/fs/cgroup", "/mnt/b") + V2.format(top="/"),
            "0::/a/b\n",
            {
                "mnt/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            1.0,
            id="v2-mount-with-more-ancestors",
        ),
        pytest.param(
            V1.format(top="/docker/x").replace("/sys/fs/cgroup/cpu,cpuacct", "/rootfs/cpu") + V1.format(top="/"),
            "3:cpuacct,cpu:/y\n",
            {
                "rootfs/cpu/cpu.cfs_quota_us": "100000\n",
                "rootfs/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1-other-mount-first",
        ),
        pytest.param(
            V1.format(top="/"),
            "3:cpu,cpuacct:/a/b\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
            },
            1.5,
            id="v1-ancestor",
        ),
        pytest.param(
            V2.format(top="/.."), "0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, id="v2-nested-namespace"
        ),
        pytest.param(
            V2.format(top="/"),
            "0::/a/b (deleted)\n",
            {"sys/fs/cgroup/a/cpu.max": "150000 100000\n"},
            1.5,
            id="v2-deleted-group",
        ),
        pytest.param(
            V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/c\\040g"),
            "0::/my box:1\n",
            {"sys/fs/c g/my box:1/cpu.max": "33333 100000\n"},
            0.33333,
            id="v2-space-and-colon",
        ),
        pytest.param(
            OTHER_V1 + V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "5:cpuset:/set\n0::/box\n",
            {
                "sys/fs/cgroup/cpuset/set/cpuset.cpus": "0\n",
                "sys/fs/cgroup/unified/box/cpuset.cpus.effective": "0-3\n",
                "sys/fs/cgroup/unified/box/cpu.max": "400000 100000\n",
            },
            4.0,
            id="hybrid-cpu-in-v2-with-cpuset",
        ),
        pytest.param(
            V1.format(top="/"),
            "3:cpu,cpuacct:/y\n",
            {"sys/fs/cgroup/cpu,cpuacct/y/cpu.cfs_quota_us": "250000\n"},
            None,
            id="v1-missing-period",
        ),
        pytest.param(V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/x": ""}, None, id="v2-missing-file"),
        pytest.param(V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "max\n"}, None, id="v2-max-only"),
        pytest.param(V2.format(top="/"), "garbage\n", {}, None, id="garbage-membership"),
        pytest.param(
            V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "100000 0\n"}, None, id="v2-zero-period"
        ),
    ],
)
def test_quota_is_the_smallest_of_the_group_and_its_ancestors(
    tmp_path: Path, mounts: str, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(cpu_groups(machine(tmp_path, mounts, membership, files))) == quota


@pytest.mark.parametrize(
    ("maximum", "affinity", "cores"),
    [("max", 4, 4), ("100000", 4, 1), ("150000", 4, 2), ("10000", 4, 1), ("800000", 4, 4), ("400000", 1, 1)],
)
def test_available_cores_is_the_quota_rounded_up_or_the_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maximum: str, affinity: int, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    machine(tmp_path, V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": f"{maximum} 100000\n"})
    assert available_cores(tmp_path) == cores


def test_available_cores_without_control_groups_is_the_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("mounts", "membership", "files", "seconds"),
    [
        (
            V2.format(top="/"),
            "0::/slice/box\n",
            {
                "sys/fs/cgroup/slice/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/slice/cpu.stat": "usage_usec 9\nthrottled_usec 2500000\n",
                "sys/fs/cgroup/slice/box/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slice/box/cpu.stat": "usage_usec 9\nthrottled_usec 0\n",
            },
            2.5,
        ),
        (
            V1.format(top="/"),
            "4:cpu,cpuacct:/box\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "25000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_time 1500000000\n",
            },
            1.5,
        ),
        (V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "max 100000\n"}, 0.0),
        (V2.format(top="/"), "0::/box\n", {"sys/fs/cgroup/box/cpu.max": "1 2\n"}, None),
        ("", "", {}, None),
    ],
    ids=["v2-ancestor", "v1", "no-quota", "no-counter", "no-groups"],
)
def test_throttled_time_is_that_of_the_groups_with_a_quota(
    tmp_path: Path, mounts: str, membership: str, files: dict[str, str], seconds: float | None
) -> None:
    assert quota_throttled_s(cpu_groups(machine(tmp_path, mounts, membership, files))) == seconds

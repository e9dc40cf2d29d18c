"""Tests of the constraints that keep the packages of an environment at the versions of the current one."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from command_line import Invoke
from small_packages import write_wheel

from harness.errors import HarnessError
from harness.execute import environments as creation
from harness.execute.constraints import conflicting, constraints
from harness.plugins import environments

NAME = "harness-test-low"
"""Package that is installed in version 1.0 in the current environment."""


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with wheels, and add version 1.0 of a package to the current environment."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        write_wheel(wheels, version, name=NAME)
    write_wheel(wheels, "1.0", name="harness-test-any", requires=f"{NAME}>=1")
    write_wheel(wheels, "1.0", name="harness-test-new", requires=f"{NAME}>=2")
    site = tmp_path / "site"
    zipfile.ZipFile(next(wheels.glob("harness_test_low-1.0-*"))).extractall(site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("HARNESS_ENVS", str(tmp_path / "envs"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return site


def installed(name: str) -> str | None:
    return environments.packages(name).get(NAME)


def test_dependency_has_the_version_of_the_current_environment(current: Path, invoke: Invoke) -> None:
    created = invoke("env", "create", "kept", "--with", "harness-test-any", "--inherit")
    assert created.exit_code == 0, created.output
    assert installed("kept") == installed("") == "1.0"
    assert NAME not in created.stdout
    assert environments.differing_packages(["", "kept"]) == []
    updated = invoke("env", "update", "kept", "--upgrade-strategy", "eager")
    assert updated.exit_code == 0, updated.output
    assert installed("kept") == "2.0"
    row = next(line for line in updated.stdout.splitlines() if line.startswith(NAME))
    assert row.split() == [NAME, "1.0", "2.0"]
    creation.update("kept")
    assert installed("kept") == "2.0"  # as before


def test_conflict_with_a_requirement_changes_the_version_of_the_package(current: Path, invoke: Invoke) -> None:
    created = invoke("env", "create", "new", "--with", "harness-test-new", "--inherit")
    assert created.exit_code == 0, created.output
    assert installed("new") == "2.0"
    assert f"resolving the dependencies again without {NAME}==1.0" in created.stderr
    row = next(line for line in created.stdout.splitlines() if line.startswith(NAME))
    assert row.split() == [NAME, "1.0", "2.0"]


def test_conflict_between_requirements_ends_with_the_output_of_the_installer(current: Path, invoke: Invoke) -> None:
    refused = invoke("env", "create", "new", "--with", "harness-test-new", "--with", f"{NAME}<2", "--inherit")
    assert refused.exit_code == 1
    assert "pip could not install the packages" in refused.stderr
    assert f"harness-test-new 1.0 depends on {NAME}>=2" in refused.stderr
    with pytest.raises(HarnessError):
        environments.load("new")


def test_only_packages_that_conflict_have_other_versions(current: Path, invoke: Invoke) -> None:
    """The conflict of the second package is found only after that of the first one."""
    wheels = current.parent / "wheels"
    for version in ("1.0", "2.0"):
        for name in ("harness-test-left", "harness-test-right"):
            write_wheel(wheels, version, name=name, requires=f"harness-test-right=={version}" if "left" in name else "")
    for name in ("left", "right"):
        zipfile.ZipFile(next(wheels.glob(f"harness_test_{name}-1.0-*"))).extractall(current)
    write_wheel(wheels, "2.0", name="harness-test-all", requires=f"{NAME}>=1\nRequires-Dist: harness-test-left>=2")
    created = invoke("env", "create", "new", "--with", "harness-test-all", "--inherit")
    assert created.exit_code == 0, created.output
    differing = [["harness-test-left", ["1.0", "2.0"]], ["harness-test-right", ["1.0", "2.0"]]]
    assert [list(each) for each in environments.differing_packages(["", "new"])] == differing
    assert "without harness-test-left==1.0" in created.stderr
    assert "without harness-test-right==1.0" in created.stderr
    creation.update("new")
    assert installed("new") == "1.0"


def test_package_that_only_another_version_of_a_requirement_conflicts_with_is_kept(
    current: Path, invoke: Invoke
) -> None:
    """pip names the conflicts of all versions of the requirement, but one of them is sufficient."""
    wheels = current.parent / "wheels"
    for version in ("1.0", "2.0"):
        write_wheel(wheels, version, name="harness-test-left")
    zipfile.ZipFile(next(wheels.glob("harness_test_left-1.0-*"))).extractall(current)
    for version, (low, left) in {"1.0": ("", "==2.0"), "1.1": ("==2.0", "")}.items():
        requires = f"{NAME}{low}\nRequires-Dist: harness-test-left{left}"
        write_wheel(wheels, version, name="harness-test-top", requires=requires)
    created = invoke("env", "create", "new", "--with", "harness-test-top", "--inherit")
    assert created.exit_code == 0, created.output
    assert "keeping harness-test-" in created.stderr
    assert len(environments.differing_packages(["", "new"])) == 1


def test_version_that_is_not_available_is_replaced(current: Path, invoke: Invoke) -> None:
    metadata = next(current.glob("*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.0+cpu"))
    created = invoke("env", "create", "kept", "--with", "harness-test-any", "--inherit")
    assert created.exit_code == 0, created.output
    assert f"without {NAME}==1.0+cpu" in created.stderr
    assert installed("kept") == "2.0"


@pytest.mark.parametrize(
    "requirement",
    [
        NAME,
        "Harness_Test.Low[extra] >= 2",
        f"{NAME}==2.0; python_version > '3'",
        f"{NAME} @ https://example.org/x.whl",
        "./wheels/harness_test_low-2.0-py3-none-any.whl",
        f"git+https://example.org/low.git#egg={NAME}",
    ],
)
def test_requirement_has_no_constraint(current: Path, requirement: str) -> None:
    assert f"{NAME}==1.0" in constraints(["other"], [])
    assert f"{NAME}==1.0" in constraints(["--pre", "./folder"], [])
    assert [one for one in constraints([requirement], []) if one.startswith(NAME)] == []
    assert [one for one in constraints([], [NAME]) if one.startswith(NAME)] == []


def test_package_from_a_file_is_installed_from_the_same_file(current: Path) -> None:
    wheel = current.parent / "wheels" / "harness_test_low-1.0-py3-none-any.whl"
    origin = next(current.glob("*.dist-info")) / "direct_url.json"
    origin.write_text(f'{{"url": "{wheel.as_uri()}", "archive_info": {{}}}}')
    assert f"{NAME} @ {wheel.as_uri()}" in constraints([], [])
    assert f"{NAME}==1.0" in constraints([], [], urls=False)
    shutil.move(wheel, current.parent / "moved.whl")
    assert f"{NAME}==1.0" in constraints([], [])  # the file no longer exists


def test_first_version_on_the_import_path_counts(
    current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipfile.ZipFile(next((tmp_path / "wheels").glob("harness_test_low-2.0-*"))).extractall(tmp_path / "first")
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert [one for one in constraints([], []) if one.startswith(NAME)] == [f"{NAME}==2.0"]
    assert installed("") == "2.0"


PIP = """
Collecting numpy==2.1.0 (from -c constraints.txt (line 3))
The conflict is caused by:
    tensorflow 2.20.0 depends on protobuf>=5.28.0
    The user requested (constraint) Proto.Buf==4.25.0+x
ERROR: Cannot install -r requirements.txt (line 1) because these package versions have conflicting dependencies.
"""
UV = """
Using Python 3.11.7 environment at: v
error: No solution found when resolving dependencies
  cause: Because top-b<=1.0 depends on proto-buf>=5.28 and proto-buf==4.25.0+x, we can conclude that top-b cannot be
         used. And because you require top-b==1.0, we can conclude that your requirements are unsatisfiable.
"""
UV_URL = """
error: No solution found when resolving dependencies
  cause: Because only local<2 is available and top-b<=1.0 depends on local>=2, we can conclude that top-b<=1.0 cannot
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [(PIP, ["proto_buf==4.25.0+x"]), (UV, ["proto_buf==4.25.0+x"]), (UV_URL, ["local @ file:///l.whl"]), ("", [])],
)
def test_conflicting_constraints_are_found_in_the_output(output: str, expected: list[str]) -> None:
    given = ["numpy==2.1.0", "proto_buf==4.25.0+x", "local @ file:///l.whl", "top-b==3.0"]
    assert conflicting(output, given) == expected

"""Tests of named environments: their creation, and runs that are executed in them.

The environments inherit the packages of this one, so that nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click.testing
import msgspec
import pytest
from command_line import Invoke
from sample_records import record, success
from small_packages import PACKAGE, write_plugin, write_wheel
from toy_plugin import FAST, SET_FAST, TOY_REF

import harness
from harness.analysis.compare.match import match
from harness.analysis.comparison_table import build_table
from harness.analysis.grouping import rival_key
from harness.checks.parity.verdict import ParityVerdict
from harness.checks.parity.verdict import load as load_verdicts
from harness.errors import CombinationError, HarnessError, UnknownNameError, UsageError
from harness.execute import environment_lock
from harness.execute import environments as creation
from harness.execute.environment import collect_failed
from harness.execute.resume import decide
from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.rerun import arguments, selection
from harness.plan.selection import Selection
from harness.plugins import environments, load
from harness.plugins.catalog import Catalog
from harness.plugins.environments import DESCRIPTION, LOCK, EnvironmentFile
from harness.records import Failure, PluginRef, RunSpec, Success
from harness.records.plausible import problem
from harness.records.store import RECORD, Store, write_json
from harness.report.progress import planned_notes

RUN = ("run", "--task", "toy-classify", "--backend", "tiny", "--threads", "1", *SET_FAST, "--quiet")
VERSIONS = {"one": "1.0", "two": "2.0"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with wheels of two versions of a small package."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in VERSIONS.values():
        write_wheel(folder, version)
    return folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> PluginRef:
    """The plugin with the backend ``tiny``."""
    return write_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Path]:
    """Directory with the environments ``one`` and ``two``, which contain different versions of the package."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("environments")
        use(patch, root, wheels)
        for name, version in VERSIONS.items():
            creation.create(name, [f"{PACKAGE}=={version}"], inherit=True)
        yield root


def use(patch: pytest.MonkeyPatch, root: Path, wheels: Path) -> None:
    patch.setenv("HARNESS_ENVS", str(root))
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.fixture
def envs(shared: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use(monkeypatch, shared, wheels)
    return shared


@pytest.fixture
def own(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty directory for environments."""
    use(monkeypatch, tmp_path / "own", wheels)
    return tmp_path / "own"


@pytest.fixture
def tiny(invoke: Invoke, plugin: PluginRef, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command with the toy plugins and the backend that needs the small package."""
    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, plugin]))
    return invoke


def succeeded(result: click.testing.Result) -> click.testing.Result:
    assert result.exit_code == 0, result.output
    return result


# ---- runs -------------------------------------------------------------------------------------------------


def test_run_in_two_environments_compares_two_versions_of_a_package(
    envs: Path, tiny: Invoke, plugin: PluginRef
) -> None:
    table = succeeded(tiny(*RUN, "--env", "one,two")).stdout
    store = Store(Path("results"))
    records = [run.record for run in store.load().runs]
    assert [each.spec.env for each in records] == ["one", "two"]
    for each in records:
        assert isinstance(each.outcome, Success), each.outcome
        version = VERSIONS[each.spec.env]
        assert each.environment.packages[PACKAGE] == version
        assert each.provenance.notes["tiny"] == version
        assert each.environment.lock_digest == environments.load(each.spec.env).lock_digest
        lock = (store.path / each.run_id / LOCK).read_text()
        assert f"{PACKAGE}=={version}  # sha256:" in lock
        assert "numpy==" in lock
    assert "env=one" in table
    assert "env=two" in table
    again = succeeded(tiny(*RUN[:-1], "--env", "two,one"))
    assert again.stderr.count("skip:") == 2
    # The lock of a run changed, for example because a package was added to the environment.
    write_json(
        store.path / records[0].run_id / RECORD,
        msgspec.structs.replace(
            records[0], environment=msgspec.structs.replace(records[0].environment, lock_digest="0" * 64)
        ),
    )
    specs = planned(load([TOY_REF, plugin]), "one", "two", overrides=FAST)
    reasons = [decision.reason for decision in decide(specs, load([TOY_REF, plugin]), store)]
    assert reasons[0] == "the lock of environment 'one' changed"
    assert reasons[1].startswith("done on")


@pytest.mark.slow
def test_reproduce_creates_the_environments_of_a_bundle(
    envs: Path, tiny: Invoke, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_ENVS", str(envs))
    succeeded(tiny(*RUN, "--env", "one,two"))
    succeeded(tiny("bundle", "--output", "all.zip"))
    monkeypatch.setenv("HARNESS_ENVS", str(own))
    assert "harness reproduce THIS.zip --create-envs\n" in zipfile.ZipFile("all.zip").read("README.md").decode()
    refused = tiny("reproduce", "all.zip", "--task", "toy-classify")
    assert refused.exit_code == 2
    assert "harness reproduce all.zip --task toy-classify --create-envs" in refused.stderr
    created: dict[str, list[str]] = {}

    def fail(name: str, *_: object, **__: object) -> None:
        raise HarnessError("pip could not install the packages")

    def create(name: str, pins: list[str], **options: object) -> environments.NamedEnvironment:
        created[name] = pins
        assert options["upgrade"] == "eager"  # The versions of the current environment do not matter.
        return CREATE(name, [pin for pin in pins if pin.startswith(PACKAGE)], inherit=True)

    monkeypatch.setattr(creation, "create", fail)
    failed = tiny("reproduce", "all.zip", "--create-envs")
    assert failed.exit_code == 1
    assert "environment 'one' could not be created: pip could not install the packages" in failed.stderr
    monkeypatch.setattr(creation, "create", create)
    outcome = succeeded(tiny("reproduce", "all.zip", "--create-envs", "--results", "again"))
    assert "2 of 2 runs match" in outcome.stdout
    assert "not exactly those of the bundle" not in outcome.stderr
    for name, pins in created.items():
        assert f"{PACKAGE}=={VERSIONS[name]}" in pins
        assert not [pin for pin in pins if pin.startswith("ml-harness")]
    again = {run.record.spec.env: run.record for run in Store(Path("again")).load().runs}
    assert {name: record.environment.packages[PACKAGE] for name, record in again.items()} == VERSIONS


CREATE = creation.create


def test_lock_pins_are_exact_versions_on_an_index_only() -> None:
    lines = ["# CPython 3.11.7", "a==1.0  # sha256:00", "b.c==2!1.0+cpu", "ml-harness==0.1.0"]
    bad = ["d @ https://example.org/d.whl", "--index-url=https://example.org", "-e .", "e==1.0 --x", "f", "./g==1"]
    local = ["h==1.0  # not from a package index"]
    assert environment_lock.pins("\n".join([*lines, *bad, *local])) == (["a==1.0", "b.c==2!1.0+cpu"], [*bad, "h==1.0"])


def test_interpreter_of_a_lock_is_that_of_its_minor_version(monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for lock in (f"# CPython {here}.99\na==1\n", "a==1\n", "# PyPy 3.10.2\n", "# CPython 3.1;x.1\n"):
        assert environment_lock.interpreter_of(lock) == ("", "")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert environment_lock.interpreter_of("# CPython 3.99.1\na==1\n") == ("python3.99", "")
    monkeypatch.setattr("shutil.which", lambda name: None)
    command, warning = environment_lock.interpreter_of("# CPython 3.99.1\na==1\n")
    assert (command, f"python3.99 is not installed, so Python {here} is used" in warning) == ("", True)


def test_runs_in_two_environments_are_compared_with_each_other(tmp_path: Path) -> None:
    runs = [record(success(), env=env, threads=threads) for threads in (1, 2) for env in ("", "one")]
    store = Store(tmp_path / "results")
    store.prepare()
    for each in runs:
        with store.scratch() as scratch:
            store.commit(scratch, each)
    stored = store.load().runs
    sides = [[run for run in stored if run.record.spec.env == env] for env in ("", "one")]
    matches, left = match(*sides)
    assert sorted((m.base[0].record.spec.threads, m.new[0].record.spec.threads) for m in matches) == [(1, 1), (2, 2)]
    assert left == []
    assert len({rival_key(each) for each in runs}) == 2
    assert all("-one-s0-" in run.record.run_id for run in sides[1])


def test_record_with_the_path_of_another_directory_as_environment_is_refused() -> None:
    assert problem(record(success(), env="one")) == ""
    assert "cannot have the name" in problem(record(success(), env="../one"))


# ---- creation and removal -----------------------------------------------------------------------------------


def test_create_with_a_missing_version_shows_the_reason_and_leaves_nothing(own: Path, invoke: Invoke) -> None:
    result = invoke("env", "create", "three", "--with", f"{PACKAGE}==3.0", "--inherit")
    assert result.exit_code == 1
    assert "pip could not install the packages" in result.stderr
    assert f"No matching distribution found for {PACKAGE}==3.0" in result.stderr
    assert [path.name for path in own.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_interrupted_creation_leaves_nothing(stage: int, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = msgspec.json.encode(
        {"python": "CPython", "version": sys.version_info[:2], "path": [], "packages": [], "modules": {}}
    )

    def run(command: list[str], *_: object) -> str:
        nonlocal stage
        stage -= 1
        if stage < 0:
            raise KeyboardInterrupt
        return probed.decode()

    monkeypatch.setattr(creation, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        creation.create("three", ["a==1"])
    assert [path.name for path in own.iterdir() if path.is_dir()] == []


def built(directory: Path, requirements: list[str], *_: object) -> None:
    """Stand in for the installation: write the files of an environment."""
    (directory / "venv").mkdir()
    (directory / LOCK).write_text("".join(f"{line}\n" for line in requirements))
    about = EnvironmentFile(
        requirements=tuple(requirements),
        installer="pip",
        inherit=False,
        interpreter="",
        python="CPython",
        path=(),
        modules={},
        installed_digest="",
    )
    write_json(directory / DESCRIPTION, about)


def test_update_replaces_the_environment_and_adds_requirements(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_build", built)
    first = creation.create("three", ["a==1"])
    (own / ".three.partial").mkdir()  # left over from a creation that was killed
    second = creation.update("three", ["b==2"])
    assert second.lock == "a==1\nb==2\n"
    assert second.lock_digest != first.lock_digest
    assert [path.name for path in own.iterdir() if path.is_dir()] == ["three"]

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(creation, "_build", fail)
    with pytest.raises(KeyboardInterrupt):
        creation.update("three", ["c==3"])
    assert environments.load("three") == second


@pytest.mark.parametrize(
    ("installer", "expected"),
    [("pip", ["-m", "pip", "--python", "PYTHON", "install"]), ("uv", ["pip", "install", "--python", "PYTHON"])],
)
def test_isolated_environment_installs_harness_from_where_it_is_installed(
    installer: str, expected: list[str], own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    probed = {"python": "CPython 3.11", "version": sys.version_info[:2], "path": [], "packages": [("a", "1", "{}")]}

    def run(command: list[str], *_: object) -> str:
        commands.append(command)
        return msgspec.json.encode({**probed, "modules": {"harness": "/h/__init__.py"}}).decode()

    monkeypatch.setattr(creation, "_run", run)
    monkeypatch.setattr(creation, "install_arguments", lambda name: ["--editable", f"/from/{name}"])
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    made = creation.create("three", ["a==1"], installer=installer)  # type: ignore[arg-type]
    venv, _, install, _ = commands
    python = str(own / ".three.partial" / "venv" / "bin" / "python")
    assert venv[1:3] == ["-m", "venv"]
    assert install[1 : 1 + len(expected)] == [python if word == "PYTHON" else word for word in expected]
    assert install[install.index("--editable") + 1] == "/from/ml-harness"
    assert install[-2:] == ["-r", str(own / ".three.partial" / "requirements.txt")]
    assert made.lock == "# CPython 3.11\na==1\n"
    assert (own / "three" / "requirements.txt").read_text() == "a==1\n"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a b", "x" * 65, "current", "ä", "a\n"])
def test_invalid_name_is_refused(name: str, own: Path) -> None:
    for act in (environments.load, creation.remove, lambda name: creation.create(name, ["a==1"])):
        with pytest.raises(UsageError, match=r"name"):
            act(name)
    assert not own.exists()


@pytest.mark.parametrize(
    "line", ["", " ", "a==1\nb==2", "-r other.txt", "--requirement=x", "-c c.txt", "-e .", "--editable ."]
)
def test_requirement_that_is_not_self_contained_is_refused(line: str, own: Path) -> None:
    with pytest.raises(UsageError):
        creation.create("three", [line])
    assert not own.exists()


def test_foreign_directory_is_neither_replaced_nor_removed(own: Path) -> None:
    (own / "mine").mkdir(parents=True)
    (own / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="not an environment created by harness"):
        creation.create("mine", ["a==1"], replace=True)
    with pytest.raises(UsageError, match="not created by harness"):
        creation.remove("mine")
    assert (own / "mine" / "thesis.txt").exists()


def test_existing_environment_is_not_replaced(own: Path, wheels: Path) -> None:
    unpacked(own, "one", wheels)
    with pytest.raises(UsageError, match="already exists; choose another name, or run: harness env remove one"):
        creation.create("one", ["a==1"])


def test_missing_interpreter_or_installer_is_reported(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="this Python interpreter does not exist"):
        creation.create("three", [], interpreter="/no/such/python")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="uv is not installed"):
        creation.create("three", ["a==1"], installer="uv")


def test_commands_list_show_and_remove_environments(own: Path, wheels: Path, invoke: Invoke) -> None:
    assert "no environments" in succeeded(invoke("env", "list")).stdout
    unpacked(own, "one", wheels)
    digest = environments.load("one").lock_digest
    assert re.search(rf"^one +CPython .* {digest[:8]} +{PACKAGE}==1.0$", succeeded(invoke("env", "list")).stdout, re.M)
    shown = succeeded(invoke("env", "show", "one")).stdout
    assert digest in shown
    assert f"{PACKAGE}==1.0" in shown
    succeeded(invoke("env", "remove", "one"))
    assert [path.name for path in own.iterdir() if path.is_dir()] == []
    assert invoke("env", "remove", "one").exit_code == 2


# ---- planning, with environments whose interpreter is never started -------------------------------------------


def unpacked(root: Path, name: str, wheels: Path, **changes: object) -> Path:
    """Create an environment without a usable interpreter, which contains a package, and return its directory."""
    directory = root / name
    (directory / "venv" / "bin").mkdir(parents=True)
    (directory / "venv" / "bin" / "python").symlink_to(sys.executable)
    (directory / "site").mkdir()
    for wheel in wheels.glob(f"*-{VERSIONS[name]}-*"):
        zipfile.ZipFile(wheel).extractall(directory / "site")
    (directory / LOCK).write_text(f"{PACKAGE}=={VERSIONS[name]}\n")
    fields = {
        "requirements": (f"{PACKAGE}=={VERSIONS[name]}",),
        "installer": "pip",
        "inherit": True,
        "interpreter": "",
        "python": environments.python_version(""),
        "path": ("site",),
        "modules": {"harness": harness.__file__},
        "installed_digest": environments.installed_digest(directory, ["site"]),
    }
    write_json(directory / DESCRIPTION, EnvironmentFile(**{**fields, **changes}))
    return directory


@pytest.fixture
def plans(own: Path, wheels: Path, toy: Path, plugin: PluginRef) -> Catalog:
    """Catalog with the backend ``tiny``, and the environments ``one`` and ``two`` without interpreters."""
    for name in VERSIONS:
        unpacked(own, name, wheels)
    return load([TOY_REF, plugin])


def planned(catalog: Catalog, *envs: str, backends: tuple[str, ...] = ("tiny",), **more: object) -> list[RunSpec]:
    chosen = Selection(tasks=("toy-classify",), backends=backends, envs=envs, threads=1)
    return list(expand(dataclasses.replace(chosen, **more), catalog))


def test_environments_are_interleaved_and_part_of_the_key(plans: Catalog) -> None:
    specs = planned(plans, "one", "two", seeds=(0, 1, 2))
    assert [spec.env for spec in specs] == ["one", "two", "two", "one", "one", "two"]
    assert len({spec.key for spec in specs}) == 6
    assert len({spec.group_key for spec in specs}) == 2
    assert planned(plans, "one", "two", backends=("tiny",), seeds=(0,))[1].title.count("two") == 1


def test_key_without_environment_is_that_of_older_runs(plans: Catalog) -> None:
    (spec,) = planned(plans, "current", backends=("toy-numpy",))
    assert spec.env == ""
    older = msgspec.to_builtins(spec)
    del older["env"]
    assert harness.records.spec.key_of(older) == spec.key


def test_backend_runs_in_the_environments_that_have_its_packages(plans: Catalog, own: Path) -> None:
    specs = planned(plans, "current", "one", backends=("toy-numpy", "tiny"))
    # The environments of this test contain the small package only, and the current one everything but this package.
    assert [(spec.backend, spec.env) for spec in specs] == [("toy-numpy", ""), ("tiny", "one")]
    with pytest.raises(UsageError, match=rf"harness_test_tiny is not installed; run: pip install {PACKAGE}"):
        planned(plans, "current")
    with pytest.raises(UsageError, match=r"numpy is not installed in environment 'one'; run: harness env update one"):
        planned(plans, "one", backends=("toy-numpy",))
    with pytest.raises(CombinationError, match="environment 'two' contains none of the selected backends"):
        planned(plans, "current", "two", backends=("toy-numpy",))


def test_packages_that_differ_between_environments_are_noted(plans: Catalog) -> None:
    assert planned_notes(planned(plans, "one")) == []
    assert planned_notes(planned(plans, "two", "one")) == [
        f"Note: packages with different versions in the environments two, one: {PACKAGE} 2.0, 1.0"
    ]


def test_unknown_environment_is_reported_with_the_known_ones(plans: Catalog) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown environment 'ones'; did you mean 'one'\?.*harness env create"):
        planned(plans, "ones")


def test_changed_packages_and_missing_interpreter_are_reported_before_anything_runs(plans: Catalog, own: Path) -> None:
    planned(plans, "one")
    (own / "one" / "site" / "other-1.0.dist-info").mkdir()
    with pytest.raises(UsageError, match=r"packages were installed or removed .* run: harness env update one"):
        planned(plans, "one")
    (own / "two" / "venv" / "bin" / "python").unlink()
    with pytest.raises(UsageError, match=r"environment 'two': the interpreter .* no longer exists"):
        planned(plans, "two")
    (own / "two" / DESCRIPTION).write_text("{}")
    with pytest.raises(UsageError, match=r"environment 'two' is damaged .* run harness env remove two,"):
        planned(plans, "two")
    creation.remove("two")
    assert environments.names() == ["one"]


@pytest.mark.parametrize(
    ("source", "problem"), [("VERSION = 1", "differs from the code"), (None, "is not installed in")]
)
def test_other_code_of_harness_is_reported_before_anything_runs(
    source: str | None, problem: str, own: Path, wheels: Path, plans: Catalog
) -> None:
    (own / "one" / "harness").mkdir()
    if source is not None:
        (own / "one" / "harness" / "__init__.py").write_text(source)
    file = own / "one" / DESCRIPTION
    about = msgspec.json.decode(file.read_bytes(), type=EnvironmentFile)
    write_json(file, msgspec.structs.replace(about, modules={"harness": "harness/__init__.py"} if source else {}))
    with pytest.raises(UsageError, match=rf"harness (in environment 'one' )?{problem}.*harness env update one"):
        planned(plans, "one")


def test_checks_before_a_run_take_little_time(plans: Catalog, plugin: PluginRef) -> None:
    start = time.process_time()
    for _ in range(10):
        environments.check("one", [TOY_REF, plugin])
        environments.missing({"numpy": "numpy"}, "one")
    assert (time.process_time() - start) / 10 < 0.1


def test_failed_run_is_recorded_with_the_packages_of_its_environment(plans: Catalog) -> None:
    assert collect_failed([PACKAGE], "two").packages[PACKAGE] == "2.0"
    assert PACKAGE not in collect_failed([PACKAGE]).packages


def test_run_that_fails_in_an_environment_is_stored_with_its_lock(plans: Catalog, tmp_path: Path) -> None:
    # The interpreter of this environment cannot import harness, so that the child process fails.
    store = Store(tmp_path / "results")
    (failed,) = run_all(planned(plans, "two"), plans, store)
    assert isinstance(failed.outcome, Failure)
    assert failed.environment.packages[PACKAGE] == "2.0"
    assert failed.environment.lock_digest == environments.load("two").lock_digest
    assert (store.path / failed.run_id / LOCK).read_text() == environments.load("two").lock


def test_environments_of_all_runs_are_checked_before_the_first_run(plans: Catalog, own: Path, tmp_path: Path) -> None:
    specs = planned(plans, "one", "two")
    (own / "two" / "site" / "other-1.0.dist-info").mkdir()
    with pytest.raises(UsageError, match=r"packages were installed or removed .* run: harness env update two"):
        run_all(specs, plans, Store(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_attempt_without_its_environment_fails(plans: Catalog, tmp_path: Path) -> None:
    (spec,) = planned(plans, "one")
    creation.remove("one")  # as on another machine
    run = harness.PlannedRun(index=1, total=1, spec=spec, plugins=plans.refs_for(spec), timeout_s=60)
    outcome = harness.execute_run(run, tmp_path).outcome
    assert isinstance(outcome, Failure)
    assert "the run could not be started: unknown environment 'one'" in outcome.message


@pytest.mark.parametrize("lock", ["", "0" * 64])
def test_attempt_with_another_lock_than_the_command_fails(lock: str, plans: Catalog, tmp_path: Path) -> None:
    """The environment with this name on another machine may have other packages."""
    (spec,) = planned(plans, "one")
    run = harness.PlannedRun(index=1, total=1, spec=spec, plugins=plans.refs_for(spec), timeout_s=60, lock_digest=lock)
    outcome = harness.execute_run(run, tmp_path).outcome
    assert isinstance(outcome, Failure)
    assert "the packages of environment 'one' differ from those on the machine that runs the command" in outcome.message


def test_parity_of_one_backend_in_two_environments(envs: Path, tiny: Invoke) -> None:
    check = ("parity", "--task", "toy-classify", "--backend", "tiny", "--threads", "1", "--env", "one,two")
    done = succeeded(tiny(*check, "--format", "json"))
    (verdict,) = msgspec.json.decode(done.stdout, type=list[ParityVerdict])
    assert verdict.backends == ("tiny in one", "tiny in two")
    assert [verdict.packages[name][PACKAGE] for name in verdict.backends] == list(VERSIONS.values())
    assert verdict.passed
    succeeded(tiny(*RUN, "--env", "one,two", "--parity"))
    records = [run.record for run in Store(Path("results")).load().runs]
    assert [[mark.backend for mark in each.parity] for each in records] == [["tiny in two"], ["tiny in one"]]
    table = build_table(records, list(load_verdicts(Path("results")).values()))
    assert [row.text("parity").partition(" (")[0] for row in table.rows] == ["same", "same"]
    assert invoke_audit(tiny, records[0].run_id) == 0


def invoke_audit(invoke: Invoke, run_id: str) -> int:
    """Audit a run, and return the exit status."""
    return invoke("audit", run_id).exit_code


def test_command_and_suite_of_a_run_name_its_environment(plans: Catalog) -> None:
    (spec,) = planned(plans, "one")
    words = arguments(selection(spec, plans))
    assert words[words.index("--env") + 1] == "one"
    assert planned(plans, *selection(spec, plans).envs) == [spec]

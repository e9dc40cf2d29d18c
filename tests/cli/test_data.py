"""Tests of ``harness data``, with a dataset that a local server publishes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from file_server import FileServer, file_server
from packed import zip_of
from remote_dataset import dataset, remote
from toy_plugin import TOY_REF

from harness.data.cache import cache_dir
from harness.data.describe import DatasetInfo
from harness.interfaces import RawInput
from harness.plugins import discover, load
from harness.plugins.catalog import Catalog, Provided

ARCHIVE = zip_of({"train.tsv": b"text\tlabel\n" * 9000})


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def far(toy: Path, invoke: Invoke, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return `invoke` with two more datasets: ``far``, which can be downloaded, and ``lost``, which cannot."""
    catalog: Catalog = load([TOY_REF])
    there = dataset(remote(server.serve("/far.zip", ARCHIVE), ARCHIVE, extract=True))
    lost = dataset(remote(f"{server.url}/lost.zip", ARCHIVE, bytes=None), name="lost")
    for each in (there, lost):
        catalog.datasets[each.name] = Provided(each, TOY_REF)
    monkeypatch.setattr("harness.plugins.discover", lambda *_: catalog)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_DATA_MIRROR", raising=False)
    return invoke


@pytest.mark.parametrize("command", ["list", "info", "fetch", "verify", "path", "clear"])
def test_data_command_help_has_examples(invoke: Invoke, command: str) -> None:
    result = invoke("data", command, "--help")
    assert result.exit_code == 0
    assert f"  harness data {command}" in result.stdout.partition("Examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lst", "unknown command 'lst'; did you mean 'list'?"),
        ("info fra", "unknown dataset 'fra'; did you mean 'far'?"),
        ("fetch far toy-colours", "unknown dataset 'toy-colours'; did you mean 'toy-colors'?"),
        ("verify fra", "did you mean 'far'?"),
        ("path fra", "did you mean 'far'?"),
        ("clear fra", "did you mean 'far'?"),
        ("path toy-colors", "dataset 'toy-colors' has no files to download"),
    ],
)
def test_data_command_wrong_request_downloads_nothing(
    far: Invoke, server: FileServer, arguments: str, message: str
) -> None:
    result = far("data", *arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert (server.asked, cache_dir().exists()) == ([], False)


def test_data_list_and_info_download_nothing(far: Invoke, server: FileServer) -> None:
    lines = {line.split()[0]: line for line in far("data", "list").stdout.splitlines()[2:]}
    assert list(lines) == ["far", "lost", "toy-colors", "toy-numbers"]
    assert re.fullmatch(r"far +toy-classify +0\.\d kB +to fetch +CC0-1\.0", lines["far"])
    assert "unknown size" in lines["lost"]
    assert re.fullmatch(r"toy-colors +toy-classify +embedded +CC0-1\.0", lines["toy-colors"])
    shown = far("data", "info", "far").stdout
    assert f"{server.url}/far.zip" in shown
    assert shown.endswith("harness run --task toy-classify --dataset far\n")
    assert "dataset.examples=160" in far("data", "info", "toy-colors").stdout
    assert (server.asked, cache_dir().exists()) == ([], False)


def info_lines(invoke: Invoke, name: str) -> list[str]:
    return [line.rstrip() for line in invoke("data", "info", name).stdout.splitlines() if line]


@pytest.fixture
def invoke_installed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return `invoke` with the installed plugins."""
    monkeypatch.setattr("harness.plugins.discover", discover)
    return invoke


def test_data_info_omits_fields_that_are_not_declared(far: Invoke) -> None:
    assert {line.split()[0] for line in info_lines(far, "far")}.isdisjoint(
        {"examples", "inputs", "0", "metric", "splits"}
    )


@pytest.mark.plugins("nlp", "regression")
def test_data_info_shows_declared_fields(invoke_installed: Invoke) -> None:
    banking = info_lines(invoke_installed, "banking77")
    assert "examples    8,998 train, 1,005 validation, 3,080 test" in banking
    assert "inputs      text: str" in banking
    assert "metric      accuracy" in banking
    (classes,) = (line for line in banking if line.startswith("77 classes"))
    assert classes.startswith("77 classes  card_arrival, card_linking, ")
    assert classes.endswith(", lost_or_stolen_card and 65 more")
    energy = info_lines(invoke_installed, "uci-energy")
    assert "examples  622 train, 69 validation, 77 test, with the default options" in energy
    assert "splits    20 published; pass --split all to use all of them" in energy
    assert "inputs    features: float64 [8]" in energy
    assert "target    heating load" in energy
    assert "inputs      waveform: float32 [any]" in info_lines(invoke_installed, "fsdd")


@pytest.mark.plugins("nlp", "regression", "speech")
def test_data_list_json_has_all_label_names(invoke_installed: Invoke) -> None:
    printed = invoke_installed("data", "list", "--format", "json").stdout
    listed = {each.name: each for each in msgspec.json.decode(printed, type=list[DatasetInfo])}
    banking, energy, fsdd = listed["banking77"], listed["uci-energy"], listed["fsdd"]
    assert (len(banking.label_names), banking.label_names[-1]) == (77, "country_support")
    assert energy.splits == tuple(range(20))
    assert (fsdd.examples["test"], fsdd.metric) == (300, "accuracy")
    assert fsdd.inputs == {"waveform": RawInput(shape=(None,), dtype="float32")}


def test_data_list_and_info_json_are_equal_records(far: Invoke, server: FileServer) -> None:
    listed = msgspec.json.decode(far("data", "list", "--format", "json").stdout, type=list[DatasetInfo])
    found = msgspec.json.decode(far("data", "info", "far", "--format", "json").stdout, type=DatasetInfo)
    assert listed[0] == found
    assert (found.state, found.path, found.download_bytes) == ("to fetch", None, len(ARCHIVE))
    (file,) = found.files
    assert (file.name, file.verified_by, file.mirror_path) == ("far.zip", "sha256", f"{server.url[7:]}/far.zip")


def test_data_fetch_path_verify_and_clear(far: Invoke, server: FileServer) -> None:
    missing = far("data", "path", "far")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "run `harness data fetch far`" in missing.stderr

    fetched = far("data", "fetch", "far", "toy-colors", "far")
    folder = Path(fetched.stdout.splitlines()[0].removeprefix("far: "))
    assert fetched.stdout == f"far: {folder}\ntoy-colors: embedded in the package; no files in the cache\n"
    assert fetched.exit_code == 0
    assert (folder / "train.tsv").is_file()
    assert far("data", "path", "far").stdout == f"{folder}\n"
    assert far("data", "path").stdout == f"{cache_dir()}\n"
    assert "cached" in far("data", "list").stdout

    assert far("data", "verify", "far").stdout == "far: unchanged since the download\n"
    (folder / "train.tsv").write_text("")
    damaged = far("data", "verify", "far")
    assert damaged.exit_code == 1
    assert "'far' is damaged; run: harness data clear far && harness data fetch far\n" in damaged.stderr
    assert f"{folder / 'train.tsv'}: expected SHA-256" in damaged.stderr

    assert re.fullmatch(r"far: freed \d+\.\d kB\n", far("data", "clear", "far").stdout)
    assert not folder.exists()
    assert server.asked == ["/far.zip"]


def test_data_fetch_continues_after_a_dataset_that_fails(far: Invoke) -> None:
    result = far("data", "fetch", "lost", "far")
    assert result.exit_code == 1
    assert result.stdout.startswith("far: ")
    assert "Error: dataset 'lost': cannot download http" in result.stderr
    assert "Traceback" not in result.stderr


def test_run_offline_without_the_dataset_starts_nothing(
    far: Invoke, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_OFFLINE", "1")
    result = far("run", "--task", "toy-classify", "--dataset", "far", "--backend", "toy-numpy")
    assert result.exit_code == 2
    assert "dataset 'far' is not available: it is not in the cache" in result.stderr
    assert (server.asked, list(tmp_path.iterdir())) == ([], [])


BAR = """
import sys
from remote_dataset import dataset, remote
from harness.cli.data import _progress
from harness.data.install import install
far = dataset(remote(sys.argv[1], open(sys.argv[2], "rb").read()))
with _progress(far) as report:
    install(far, report)
"""


def test_data_fetch_on_a_terminal_shows_a_progress_bar(server: FileServer, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 500_000)
    parent, child = pty.openpty()
    helpers = str(Path(__file__).parents[1] / "helpers")
    arguments = [sys.executable, "-c", BAR, server.serve("/far.bin", body.read_bytes()), str(body)]
    settings = {"PYTHONPATH": helpers, "TERM": "xterm", "COLUMNS": "120", "HARNESS_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(arguments, env={**os.environ, **settings}, stderr=child)
    os.close(child)
    output = b""
    try:
        while data := os.read(parent, 4096):
            output += data
    except OSError:  # Linux raises this error when the other end is closed.
        pass
    os.close(parent)
    assert process.wait(60) == 0
    assert b"far: far.bin" in output
    assert b"500.0/500.0 kB" in output

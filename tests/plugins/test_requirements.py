"""Tests of the packages that a plugin requires."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from harness.plugins.requirements import DISTRIBUTION, install_command, missing


def test_missing_returns_the_install_command() -> None:
    assert missing({}) is None
    assert missing({"json": "pip install json"}) is None
    assert missing({"no_such_thing": "pip install a"}) == "no_such_thing is not installed; run: pip install a"
    both = missing({"no_such_thing": "pip install a", "json": "pip install j", "no_other": "pip install a"})
    assert both == "no_such_thing and no_other are not installed; run: pip install a"


def test_missing_finds_submodules() -> None:
    assert missing({"importlib.metadata": "x"}) is None
    assert missing({"no_such_thing.inside": "pip install a"}) is not None
    assert missing({"json.decoder.inside": "pip install a"}) is not None


def test_missing_imports_nothing() -> None:
    sys.modules.pop("this", None)
    assert missing({"this": "x"}) is None
    assert "this" not in sys.modules


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, origin: object) -> None:
    """Install the metadata of a distribution, with the origin that pip writes."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if origin is not None:
        text = origin if isinstance(origin, str) else json.dumps(origin)
        (info / "direct_url.json").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'some-plugin[torch]'"),
        ({"url": "file:///home/me/check%20out", "dir_info": {}}, "pip install '/home/me/check out[torch]'"),
        (
            {"url": "file:///home/me/out", "dir_info": {"editable": True}},
            "pip install --editable '/home/me/out[torch]'",
        ),
        (
            {"url": "file:///tmp/p-1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'some-plugin[torch] @ file:///tmp/p-1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://example.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'some-plugin[torch] @ git+https://example.org/p.git@abc'",
        ),
        ("not JSON", "pip install 'some-plugin[torch]'"),
        ("[]", "pip install 'some-plugin[torch]'"),
    ],
)
def test_install_command_installs_from_where_the_distribution_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: object, command: str
) -> None:
    installed(monkeypatch, tmp_path, "some-plugin", origin)
    assert install_command("some-plugin[torch]") == command
    assert missing({"no_such_thing": "some-plugin[torch]"}) == f"no_such_thing is not installed; run: {command}"


@pytest.mark.parametrize("text", ["pip install numpy", "conda install -c nvidia cuda", "pip install 'a[b]'"])
def test_install_command_leaves_commands_unchanged(text: str) -> None:
    assert install_command(text) == text


def test_own_distribution_is_installed_under_its_name() -> None:
    found = importlib.metadata.packages_distributions()["harness"]
    assert set(found) == {DISTRIBUTION}

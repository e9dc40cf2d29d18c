"""Tests of `RemoteFile` and of the mapping from URLs to paths in a mirror."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.interfaces.remote import mirror_path


@pytest.mark.parametrize(
    ("url", "path", "name"),
    [
        ("https://h.org/a/b.zip", "h.org/a/b.zip", "b.zip"),
        ("http://H.org:80/b.zip", "h.org/b.zip", "b.zip"),
        ("http://h.org:8080/b.zip", "h.org:8080/b.zip", "b.zip"),
        ("https://h.org/~me/sms+spam+collection.zip", "h.org/~me/sms+spam+collection.zip", "sms+spam+collection.zip"),
        ("https://h.org/a%20b.zip", "h.org/a b.zip", "a_b.zip"),
        ("https://h.org/get?id=1/2&v=%C3%A9", "h.org/get?id=1%2F2&v=é", "get"),
    ],
)
def test_mirror_path_of_a_url_is_host_and_path(url: str, path: str, name: str) -> None:
    assert mirror_path(url) == path
    assert harness.RemoteFile(url=url).local_name == name


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.text())
def test_mirror_path_stays_inside_the_mirror(parts: list[str], query: str) -> None:
    try:
        path = mirror_path(f"https://h.org/{'/'.join(quote(part, safe='.') for part in parts)}?{quote(query, safe='')}")
    except harness.PluginError:
        assert any(part in (".", "..") or "/" in part or "\0" in part for part in parts) or "\0" in query
    else:
        assert path.startswith("h.org/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert path.count("/") == len(parts)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"url": "ftp://h.org/a"}, "write http://HOST/PATH or https://HOST/PATH"),
        ({"url": "https://h.org/"}, "is not the URL of a file"),
        ({"url": "https://h.org/a/../../b"}, "is not the URL of a file"),
        ({"url": "https://h.org:x/a"}, "cannot be downloaded"),
        ({"url": "https://h.org/a", "alternates": ("a",)}, "'a' cannot be downloaded"),
        ({"url": "https://h.org/a", "sha256": "abc"}, "'abc' is not a SHA-256"),
        ({"url": "https://h.org/a", "members": {"m": "d41d8cd98f00b204e9800998ecf8427e"}}, "is not a SHA-256"),
        ({"url": "https://h.org/a", "name": "../a"}, "is not a valid file name"),
        ({"url": "https://h.org/.a"}, "is not a valid file name; set RemoteFile(name=...)"),
    ],
)
def test_remote_file_that_is_not_valid_raises(declared: dict[str, str], message: str) -> None:
    with pytest.raises(harness.PluginError) as caught:
        harness.RemoteFile(**declared)  # type: ignore[arg-type]
    assert message in str(caught.value)

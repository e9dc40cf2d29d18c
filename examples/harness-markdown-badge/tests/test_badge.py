from pathlib import Path
from urllib.parse import unquote

from harness_markdown_badge import badge

from harness.testing import PluginSuite, ReporterSuite, sample_report


class TestPlugin(PluginSuite):
    name = "markdown-badge"


class TestFormat(ReporterSuite):
    name = "markdown-badge"


def test_render_gives_a_badge_for_each_row(tmp_path: Path) -> None:
    table = sample_report(tmp_path).table
    lines = badge.render(table).splitlines()
    assert len(lines) == len(table.rows) > 1
    for line, row in zip(lines, table.rows, strict=True):
        assert row.cells["quality"].shown in unquote(line) or row.text("status") in unquote(line)
        assert line.startswith("![")
        assert f"]({badge.SERVICE}" in line


def test_special_characters_in_urls_are_escaped() -> None:
    assert badge._url("resnet-20", "f1_macro 0.9", "blue") == badge.SERVICE + "resnet--20-f1__macro_0.9-blue"
    assert badge._url("a/b?c", "ü", "red") == badge.SERVICE + "a%2Fb%3Fc-%C3%BC-red"

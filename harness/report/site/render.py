"""Templates to pages."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from harness.report.table import one_line

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, root: str, **context: Any) -> bytes:
    """`root` leads from the page to the home page's directory."""
    html: str = _environment().get_template(template).render(root=root, **context)
    return html.encode(errors="replace")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("harness.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # else it looks at every template's file again for each page
    )
    environment.filters["json"] = lambda value: Markup(json(value))
    environment.filters["line"] = one_line
    environment.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    return environment


def json(value: Any) -> str:
    """JSON that may stand in a script element: no tag can begin or end in it."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text

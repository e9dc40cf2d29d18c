"""Templates to pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from harness.analysis.formatting import one_line

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


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
    environment.globals["drawings"] = _drawings
    environment.filters["line"] = one_line
    environment.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    return environment


def _drawings(titled: Iterable[tuple[str, str]], notes: Mapping[str, str] | None = None) -> Markup:
    """Places for figures, by their keys, with titles and remarks."""
    from markupsafe import Markup

    return Markup("").join([_drawing(key, title, (notes or {}).get(key, "")) for key, title in titled])


@lru_cache(maxsize=256, typed=True)  # a Markup is escaped already, an equal text is not
def _drawing(key: str, title: str, note: str) -> Markup:
    """Kept, because the pages of runs have the same ones."""
    macros: Any = _environment().get_template("macros.html").module
    made: Markup = macros.drawing(key, title, note)
    return made


def json(value: Any) -> str:
    """JSON that may stand in a script element: no tag can begin or end in it."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text

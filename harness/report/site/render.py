"""Template rendering."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from harness.analysis.formatting import one_line
from harness.report.plots.embedding import embedded_json

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def page(template: str, root: str, **context: Any) -> bytes:
    """Render a page. `root` is the relative path from the page to the home page's directory."""
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
        auto_reload=False,  # do not check the template files for changes on every page
    )
    environment.filters["json"] = lambda value: Markup(embedded_json(value))
    environment.globals["drawings"] = _drawings
    environment.filters["line"] = one_line
    environment.filters["code"] = lambda text: Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
    return environment


def _drawings(titled: Iterable[tuple[str, str]], notes: Mapping[str, str] | None = None) -> Markup:
    """Return HTML containers for plots with their titles and notes. `notes` maps plot keys to notes."""
    from markupsafe import Markup

    return Markup("").join([_drawing(key, title, (notes or {}).get(key, "")) for key, title in titled])


@lru_cache(maxsize=256, typed=True)  # typed, because an equal str and Markup are escaped differently
def _drawing(key: str, title: str, note: str) -> Markup:
    """Return the HTML container for one plot. The result is cached, because the same plots appear on all run pages."""
    macros: Any = _environment().get_template("macros.html").module
    made: Markup = macros.drawing(key, title, note)
    return made

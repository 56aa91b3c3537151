"""HTML templates and the page around a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from spacy_slmre.visual.options import ViewOptions


def template(name: str, package: str = "spacy_slmre.visual") -> Template:
    """Return a template from a package's folder `templates`; all values are escaped."""
    return _environment(package).get_template(name)


def stylesheet() -> Markup:
    """Return the style sheet that all pages share."""
    return Markup(template("style.css").render())


def as_figure(body: str, options: ViewOptions, title: str = "", legend: Sequence[tuple] = ()) -> str:
    """Return an HTML fragment with its own styles around trusted HTML."""
    return template("figure.jinja").render(
        css=stylesheet(), theme=options.theme, title=title, legend=legend, body=Markup(body)
    )


def as_page(body: str, options: ViewOptions) -> str:
    """Return a whole HTML page around trusted HTML."""
    return template("page.jinja").render(theme=options.theme, title=options.title, body=Markup(body))


@cache
def _environment(package: str) -> Environment:
    # No trim_blocks, which would join words. Everything is escaped, whatever the file's suffix.
    environment = Environment(loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined)
    environment.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    return environment

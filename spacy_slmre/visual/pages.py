"""HTML templates, figures and pages."""

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
    """Return the style sheet of all figures and pages."""
    return Markup(template("style.css").render())


def as_figure(body: str, options: ViewOptions, title: str = "", legend: Sequence[tuple] = ()) -> str:
    """Wrap trusted HTML in a fragment with its own styles."""
    return template("figure.jinja").render(
        css=stylesheet(), theme=options.theme, title=title, legend=legend, body=Markup(body)
    )


def as_page(body: str, options: ViewOptions) -> str:
    """Wrap trusted HTML in a complete page."""
    return template("page.jinja").render(theme=options.theme, title=options.title, body=Markup(body))


@cache
def _environment(package: str) -> Environment:
    # Everything is escaped, whatever the file's suffix. No trim_blocks, which would join words.
    environment = Environment(loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined)
    environment.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    return environment

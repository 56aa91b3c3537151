"""`render`: relations as arcs over the text or as a graph, in the manner of `displacy.render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from spacy.tokens import Doc, Span
from spacy.util import is_in_jupyter

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.reading import as_documents
from spacy_slmre.relations import RELATIONS
from spacy_slmre.visual.blocks import Style, make_blocks
from spacy_slmre.visual.colors import entity_colors, relation_styles
from spacy_slmre.visual.options import ViewOptions

STYLES = ("arcs", "graph")


def render(
    docs: Doc | Span | RelationDocument | Iterable[Doc | Span | RelationDocument],
    style: str = "arcs",
    page: bool = False,
    jupyter: bool | None = None,
    options: Mapping[str, Any] | ViewOptions | None = None,
    *,
    attr: str = RELATIONS,
) -> str | None:
    """Draw the relations of documents.

    Args:
        docs: One document or many: spaCy's, or those of `spacy_slmre.export.read_documents`.
        style: "arcs" draws labelled arcs over the text, sentence by sentence; "graph" draws entities with
            the relations between them, over all documents.
        page: Give a whole HTML page, which needs no other file and no network.
        jupyter: Display it in a notebook; None finds out whether this is one.
        options: What to show, and how: see `ViewOptions`.
        attr: Where the relations lie: `doc._.<attr>`.

    Returns:
        HTML; None where it was displayed.

    Raises:
        ValueError: The style or an option is unknown, or something else than documents was given.
    """
    if style not in STYLES:
        raise ValueError(f'Unknown style "{style}". Use one of {", ".join(STYLES)}.')
    chosen = ViewOptions.of(options)
    documents = list(as_documents(docs, attr))
    in_notebook = jupyter or (jupyter is None and is_in_jupyter())
    if style == "graph":
        from spacy_slmre.visual.graph import graph_page

        html = graph_page(documents, chosen)
        if in_notebook or not page:
            # A frame keeps its script and its styles from those of the page around it, and theirs from it.
            html = str(
                Markup(
                    '<iframe sandbox="allow-scripts" title="{}" srcdoc="{}" '
                    'style="width: 100%; height: 640px; border: 0"></iframe>'
                ).format(chosen.title, html)
            )
    else:
        html = arcs_figure(documents, chosen, title=chosen.title if page and not in_notebook else "")
        if page and not in_notebook:
            html = as_page(html, chosen)
    if in_notebook:
        from IPython.display import HTML, display

        # The class keeps MathJax from reading dollar signs, as in displaCy.
        display(HTML(f'<span class="tex2jax_ignore">{html}</span>'))
        return None
    return html


def arcs_figure(documents: Sequence[RelationDocument], options: ViewOptions, title: str = "") -> str:
    """Documents with arcs as an HTML fragment that brings its own styles."""
    shown = {
        id(document): [one for one in document.relations if options.shows(one.label, one.score)]
        for document in documents
    }
    counts = Counter(one.label for relations in shown.values() for one in relations)
    colors = entity_colors(options.colors)
    styles = relation_styles(
        counts.elements(), {name.upper(): value for name, value in options.colors.items()}
    )
    style = Style(options, colors, styles, options.shows_scores(documents))
    body = template("arcs.jinja").render(
        documents=[
            {
                "id": document.id,
                "text": document.text,
                "error": document.error,
                "blocks": list(make_blocks(document, style)),
                "rows": shown[id(document)],
            }
            for document in documents
        ],
        headings=len(documents) > 1,
    )
    if not documents:
        body = '<p class="note">There are no documents to show.</p>'
    legend = [(label, count, styles[label]) for label, count in counts.most_common()]
    return as_figure(body, options, title, legend)


def as_figure(body: str, options: ViewOptions, title: str = "", legend: Sequence[tuple] = ()) -> str:
    """HTML inside our element, with our styles."""
    css = template("style.css").render()
    return template("figure.jinja").render(
        css=Markup(css), theme=options.theme, title=title, legend=legend, body=Markup(body)
    )


def as_page(body: str, options: ViewOptions) -> str:
    """A whole HTML page around our element."""
    return template("page.jinja").render(theme=options.theme, title=options.title, body=Markup(body))


def template(name: str):  # type: ignore[no-untyped-def]
    """A template of this package; what it is given is escaped."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    # trim_blocks would join words; every text is escaped, whatever its file is called.
    environment = Environment(
        loader=PackageLoader("spacy_slmre.visual"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    return environment

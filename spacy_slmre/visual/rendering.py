"""`render` draws relations as arcs above the text or as a graph; it is called like `displacy.render`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from spacy.tokens import Doc, Span
from spacy.util import is_in_jupyter

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.reading import as_documents
from spacy_slmre.relations import RELATIONS
from spacy_slmre.util.extras import require_extra
from spacy_slmre.visual.arc_drawing import PictureStyle, make_blocks
from spacy_slmre.visual.colors import entity_colors, relation_styles
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.pages import as_figure, as_page, template

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
        docs: spaCy documents, or those returned by `spacy_slmre.export.read_documents`.
        style: "arcs" draws labeled arcs above the text of each document; "graph" draws a graph of the entities of all
            documents.
        page: Return a complete, self-contained HTML page, in a notebook too.
        jupyter: Display the picture in a notebook; None detects notebooks.
        options: See `ViewOptions`.
        attr: Relations are read from `doc._.<attr>`.

    Returns:
        HTML, or None if the picture is displayed in a notebook.

    Raises:
        ValueError: The style or an option is unknown, or an item is not a document.
    """
    if style not in STYLES:
        raise ValueError(f'Unknown style "{style}". Use one of {", ".join(STYLES)}.')
    chosen = ViewOptions.from_dict(options)
    documents = list(as_documents(docs, attr))
    if style == "graph":
        html = _graph(documents, chosen, page)
    else:
        html = arcs_figure(documents, chosen, title=chosen.title if page else "")
        html = as_page(html, chosen) if page else html
    if page or not (is_in_jupyter() if jupyter is None else jupyter):
        return html
    from IPython.display import HTML, display

    # As in displaCy, this class prevents MathJax from interpreting dollar signs.
    display(HTML(f'<span class="tex2jax_ignore">{html}</span>'))
    return None


def arcs_figure(documents: Sequence[RelationDocument], options: ViewOptions, title: str = "") -> str:
    """Draw arcs above the text of documents as an HTML fragment with its own styles."""
    shown = [options.shown_relations(document) for document in documents]
    counts = Counter(relation.label for relations in shown for relation in relations)
    styles = relation_styles(counts.elements(), options.colors)
    style = PictureStyle(options, entity_colors(options.colors), styles, options.shows_scores(documents))
    body = template("arcs.jinja").render(
        documents=[
            {
                "id": document.id,
                "text": document.text,
                "error": document.error,
                "blocks": list(make_blocks(document, style)),
                "rows": relations,
            }
            for document, relations in zip(documents, shown, strict=True)
        ],
        headings=len(documents) > 1,
    )
    legend = [(label, count, styles[label]) for label, count in counts.most_common()]
    return as_figure(body, options, title, legend)


def _graph(documents: Sequence[RelationDocument], options: ViewOptions, whole_page: bool) -> str:
    with require_extra("export", "The graph"):
        from spacy_slmre.visual.graph_page import graph_page
    html = graph_page(documents, options)
    if whole_page:
        return html
    # A frame separates the scripts and styles of the graph from those of the surrounding page.
    frame = (
        '<iframe sandbox="allow-scripts" title="{}" srcdoc="{}" style="width: 100%; height: 640px; border: 0"></iframe>'
    )
    return str(Markup(frame).format(options.title, html))

"""The local page on which a person reviews pairs; see `spacy_slmre.serve.pages` for its security rules.

GET  /                                                 the page
POST /item    {"item": 3}, or {} for the next one  →   a pair with its picture, and how many are decided
POST /draw    {"item": 3, "labels": […], "reversed": false}  →   a picture
POST /decide  {"item": 3, "action": "accept", "labels": […], "reversed": false}  →   the next pair, as for /item
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import HTMLResponse

from spacy_slmre.review.decisions import Decision
from spacy_slmre.review.session import ReviewSession
from spacy_slmre.serve.pages import make_app, page_response
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.rendering import arcs_figure

Data = Annotated[Any, Body()]


def make_review_app(session: ReviewSession, options: ViewOptions | None = None) -> FastAPI:
    """Make the app of a review session; `options` has the theme and the title of its page."""
    options = replace(options or ViewOptions(), sentences="related", scores=False)
    app = make_app(openapi_url=None)

    @app.get("/")
    def page() -> HTMLResponse:
        return page_response("review", __package__, options, visited=list(session.decisions))

    @app.post("/item")
    def show_item(data: Data) -> dict[str, Any]:
        return state(session.next_item() if data == {} else read(data, action="skip").item)

    @app.post("/draw")
    def draw_decision(data: Data) -> dict[str, str]:
        return {"html": draw(read(data, action="accept"))}

    @app.post("/decide")
    def decide(data: Data) -> dict[str, Any]:
        try:
            session.decide(read(data))
        except OSError as error:
            reason = f"The decision could not be saved ({error}). Make room on the disk, then repeat it."
            raise HTTPException(507, reason) from error
        return state(session.next_item())

    def read(data: Any, **values: Any) -> Decision:
        try:
            return Decision.from_dict({**data, **values} if isinstance(data, dict) else data, session.items)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    def state(number: int | None) -> dict[str, Any]:
        """Return what the page shows for a pair, or that all pairs are decided."""
        counts = {"total": len(session.items), "decided": session.n_decided}
        if number is None:
            return {**counts, "item": None}
        item = session.items[number]
        decision = session.decisions.get(number)
        shown = decision if decision and decision.labels else Decision(number, "accept", tuple(dict(item.labels)))
        return {
            **counts,
            "item": number,
            "document": item.source.document.id,
            "labels": shown.labels,
            "reversed": shown.reversed,
            "is_predicted": item.is_predicted,
            "probabilities": item.probabilities,
            "negative": item.source.schema.negative_label,
            "choices": item.choices(),
            "decision": decision.action if decision else None,
            "is_decided": session.is_decided(number),
            "html": draw(shown),
        }

    def draw(decision: Decision) -> str:
        """Draw the relations that a decision accepts."""
        item = session.items[decision.item]
        relations = item.relations(decision.labels, reverse=decision.reversed)
        return arcs_figure([replace(item.source.document, relations=relations)], options)

    return app

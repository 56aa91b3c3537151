"""The local page on which a person reviews pairs; see `spacy_slmre.serve.local` for its security rules.

GET  /                                                 the page
POST /item    {"item": 3}, or {} for the next one  →   a pair with its picture, and how many are decided
POST /draw    {"item": 3, "labels": […], "reversed": false}  →   a picture
POST /decide  {"item": 3, "action": "accept", "labels": […], "reversed": false}  →   the next pair, as for /item
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from spacy_slmre.review.decisions import Decision
from spacy_slmre.review.session import ReviewSession
from spacy_slmre.serve.local import LocalHandler, LocalServer, PageError
from spacy_slmre.visual.options import ViewOptions
from spacy_slmre.visual.rendering import arcs_figure


class ReviewServer(LocalServer):
    """Serves the page of a review session.

    Args:
        session: The session.
        port: Port on the loopback address; 0 for any free port.
        options: Theme and title.

    Raises:
        ValueError: The port is not available.
    """

    def __init__(self, session: ReviewSession, port: int = 0, options: ViewOptions | None = None) -> None:
        super().__init__(_ReviewHandler, port, replace(options or ViewOptions(), sentences="related", scores=False))
        self.session = session

    def state(self, number: int | None) -> dict[str, Any]:
        """Return what the page shows for a pair, or that all pairs are decided."""
        session = self.session
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
            "html": self.draw(shown),
        }

    def draw(self, decision: Decision) -> str:
        """Draw the relations that a decision accepts."""
        item = self.session.items[decision.item]
        relations = item.relations(decision.labels, reverse=decision.reversed)
        return arcs_figure([replace(item.source.document, relations=relations)], self.options)


class _ReviewHandler(LocalHandler):
    server: ReviewServer

    def page(self) -> str:
        return self.render("review", __package__)

    def answer(self) -> dict[str, Any]:
        session = self.server.session
        if self.path == "/item":
            data = self.read_json('Send JSON: {"item": 3}, or {} for the next pair.')
            if data == {}:
                return self.server.state(session.next_item())
            return self.server.state(self._decision(data, action="skip").item)
        if self.path == "/draw":
            data = self.read_json('Send JSON: {"item": 3, "labels": ["…"], "reversed": false}.')
            return {"html": self.server.draw(self._decision(data, action="accept"))}
        if self.path == "/decide":
            data = self.read_json('Send JSON: {"item": 3, "action": "accept", "labels": ["…"], "reversed": false}.')
            try:
                session.decide(self._decision(data))
            except OSError as error:
                reason = f"The decision could not be saved ({error}). Make room on the disk, then repeat it."
                raise PageError(HTTPStatus.INSUFFICIENT_STORAGE, reason) from error
            return self.server.state(session.next_item())
        raise PageError(HTTPStatus.NOT_FOUND, "Send requests to /item, /draw or /decide.")

    def _decision(self, data: Any, **values: Any) -> Decision:
        try:
            return Decision.from_dict({**data, **values} if isinstance(data, dict) else data, self.server.session.items)
        except ValueError as error:
            raise PageError(HTTPStatus.BAD_REQUEST, str(error)) from None

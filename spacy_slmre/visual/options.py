"""Options of pictures, given as a dict as in `displacy.render`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from spacy_slmre.documents import DocumentRelation, RelationDocument
from spacy_slmre.facts import LEVELS, MERGE_BY, distinct_relations
from spacy_slmre.util.settings import check_choice, check_maximum, check_minimum, check_types

_COLOR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-zA-Z]+|(?:rgb|hsl|oklch|oklab|lab|lch|hwb)a?\([\w\s.,%/+-]*\)")
THEMES = ("auto", "light", "dark")


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Options of arcs and graphs.

    Attributes:
        colors: CSS colors by entity type or relation label. They take precedence over colors from other packages (entry
            points `spacy_displacy_colors`).
        min_score: Hide relations with a lower score.
        labels: Only show relations with these labels; empty means all.
        scores: Show scores of relations; None shows them unless all are 1, as in gold data.
        sentences: For arcs: show "all" sentences, or only "related" ones, which have a relation.
        width: For arcs: width of a line in pixels.
        level: For the graph: nodes are "mentions", or the entities of each document ("facts"); None joins the entities
            of all documents.
        merge: For the graph, if it joins entities (see `spacy_slmre.facts`): "text", or "type" to merge mentions
            without an id only if their entity types are equal.
        max_relations: For the graph: maximum number of relations; those that occur most often are shown, and of equally
            frequent ones, those with the highest score.
        theme: "auto" (the reader's system setting), "light" or "dark".
        title: Title of a page.

    Raises:
        ValueError: A value is not allowed.
    """

    colors: Mapping[str, str] = field(default_factory=dict)
    min_score: float = 0.0
    labels: Collection[str] = ()
    scores: bool | None = None
    sentences: str = "all"
    width: int = 880
    level: str | None = None
    merge: str = "text"
    max_relations: int = 500
    theme: str = "auto"
    title: str = "Relations"

    def __post_init__(self) -> None:
        check_types(self, "options", may_be_empty=("title",))
        check_choice(self, "options", sentences=("all", "related"), merge=MERGE_BY, theme=THEMES)
        check_choice(self, "options", level=(None, *LEVELS))
        check_minimum(self, "options", width=200, max_relations=1)
        check_maximum(self, "options", width=10_000)
        for name, color in self.colors.items():
            if not is_color(color):
                raise ValueError(f'options["colors"]["{name}"] = {color!r} is not a CSS color like "#fa0".')

    @classmethod
    def from_dict(cls, options: Mapping[str, Any] | ViewOptions | None) -> ViewOptions:
        """Make options from a dict. Raises ValueError if a name is unknown or a value is not allowed."""
        if isinstance(options, ViewOptions):
            return options
        if not isinstance(options, Mapping | None):
            raise ValueError(f"The options must be a dict or ViewOptions, not {options!r:.80}.")
        known = sorted(option.name for option in fields(cls))
        for name in options or ():
            if name not in known:
                raise ValueError(f'Unknown option "{name}". The options are {", ".join(known)}.')
        return cls(**(options or {}))

    def shows(self, label: str, score: float) -> bool:
        """Return whether a relation is shown."""
        return score >= self.min_score and (not self.labels or label in self.labels)

    def shown_relations(self, document: RelationDocument) -> list[DocumentRelation]:
        """Return the relations of a document that are shown, with one for both directions of a symmetric label."""
        shown = tuple(one for one in document.relations if self.shows(one.label, one.score))
        return distinct_relations(replace(document, relations=shown))

    def shows_scores(self, documents: Collection[RelationDocument]) -> bool:
        """Return whether scores are shown next to labels."""
        if self.scores is not None:
            return self.scores
        return any(relation.score != 1.0 for document in documents for relation in document.relations)


def is_color(color: Any) -> bool:
    """Return whether a value is a single CSS color, which is safe in a style attribute."""
    return isinstance(color, str) and _COLOR.fullmatch(color) is not None

"""Options of pictures, as `displacy.render` takes them: a dict."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from spacy_slmre.documents import RelationDocument
from spacy_slmre.export.edges import MERGE_BY

_COLOR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-zA-Z]+|(?:rgb|hsl|oklch|oklab|lab|lch|hwb)a?\([\w\s.,%/+-]*\)")


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What a picture shows, and how.

    Attributes:
        colors: CSS colours by entity type or relation label; they come before those of other packages
            (entry points `spacy_displacy_colors`).
        min_score: Relations with a lower score are not shown.
        labels: Only relations of these labels are shown; none shows all.
        scores: Write scores beside labels; None writes them unless all are 1, as in gold annotation.
        sentences: Of arcs: "all" the text, or only sentences "related" by a relation.
        width: Of arcs: width of a line, in pixels.
        merge: Of the graph: what makes two mentions one node, "text" or "type" (and text); a knowledge base
            id comes before both.
        max_relations: Of the graph: the most frequent and best relations that are shown.
        theme: "auto" (what the reader's system says), "light" or "dark".
        title: Of a page.

    Raises:
        ValueError: A value is not one of these.
    """

    colors: Mapping[str, str] = field(default_factory=dict)
    min_score: float = 0.0
    labels: Collection[str] = ()
    scores: bool | None = None
    sentences: str = "all"
    width: int = 880
    merge: str = "text"
    max_relations: int = 500
    theme: str = "auto"
    title: str = "Relations"

    def __post_init__(self) -> None:
        choices = {"sentences": ("all", "related"), "merge": MERGE_BY, "theme": ("auto", "light", "dark")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'options["{name}"] = {getattr(self, name)!r}. Use one of {", ".join(allowed)}.'
                )
        if isinstance(self.labels, str):
            raise ValueError(f'options["labels"] = "{self.labels}": give a list of labels.')
        if not 200 <= self.width <= 10_000:
            raise ValueError(f'options["width"] = {self.width}: give 200 to 10000 pixels.')
        if self.max_relations < 1:
            raise ValueError(f'options["max_relations"] = {self.max_relations}, but it must be at least 1.')
        for name, color in self.colors.items():
            if not is_color(color):
                raise ValueError(
                    f'options["colors"]["{name}"] = {color!r} is no CSS colour such as "#ffaa00".'
                )

    @classmethod
    def of(cls, options: Mapping[str, Any] | ViewOptions | None) -> ViewOptions:
        """The options of a dict.

        Raises:
            ValueError: It has an unknown name or a wrong value.
        """
        if isinstance(options, ViewOptions):
            return options
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(options or ()) - names)
        if unknown:
            raise ValueError(f'Unknown option "{unknown[0]}": there are {", ".join(sorted(names))}.')
        return cls(**(options or {}))

    def shows(self, label: str, score: float) -> bool:
        """Whether a relation is shown."""
        return score >= self.min_score and (not self.labels or label in self.labels)

    def shows_scores(self, documents: Collection[RelationDocument]) -> bool:
        """Whether scores are written beside labels."""
        if self.scores is not None:
            return self.scores
        return any(relation.score != 1.0 for document in documents for relation in document.relations)


def is_color(color: Any) -> bool:
    """Whether something is a CSS colour, and cannot be anything else."""
    return isinstance(color, str) and _COLOR.fullmatch(color) is not None

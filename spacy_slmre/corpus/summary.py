"""Corpus statistics: documents, pairs by label, the highest possible score, the longest document, rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc

from spacy_slmre.corpus.gold_docs import ID, format_of
from spacy_slmre.pipeline.examples import gold_relations
from spacy_slmre.relations import RELATIONS, Relation, annotates_pairs, relations_of


def annotated_pairs(doc: Doc) -> list[tuple[Relation, bool]]:
    """Return the annotated pairs of a gold document, each with whether it is negative.

    The document's format decides which label is negative. Without a format, a pair is negative if it is not in
    `doc._.relations`.
    """
    pairs = gold_relations(doc)
    if (format := format_of(doc)) is not None:
        return [(pair, format.is_negative(pair.label)) for pair in pairs]
    if not annotates_pairs(doc):
        return [(pair, False) for pair in pairs]
    positive = {(*_offsets(relation), relation.label) for relation in relations_of(doc, RELATIONS)}
    return [(pair, (*_offsets(pair), pair.label) not in positive) for pair in pairs]


def _offsets(relation: Relation) -> tuple[int, ...]:
    return relation.head.start, relation.head.end, relation.tail.start, relation.tail.end


@dataclass
class Summary:
    """Statistics of a corpus; documents are added one at a time.

    An instance is an annotated pair with one label, so a pair with several labels counts as several instances.

    Attributes:
        documents: Number of documents.
        labels: Number of instances by label, including the negative one.
        negatives: Number of instances with the negative label.
        pairs: Number of distinct pairs with a relation.
        multi_label_pairs: Number of those with several different labels.
        longest: Tokens, characters and id of the longest document.
        rejects: Number of rejects by reason.
    """

    documents: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    negatives: int = 0
    pairs: int = 0
    multi_label_pairs: int = 0
    longest: tuple[int, int, str] = (0, 0, "")
    rejects: Counter[str] = field(default_factory=Counter)

    def add(self, doc: Doc) -> None:
        """Count a document."""
        self.documents += 1
        by_pair: dict[tuple[int, ...], set[str]] = {}
        for pair, is_negative in annotated_pairs(doc):
            self.labels[pair.label] += 1
            if is_negative:
                self.negatives += 1
            else:
                by_pair.setdefault(_offsets(pair), set()).add(pair.label)
        self.pairs += len(by_pair)
        self.multi_label_pairs += sum(len(labels) > 1 for labels in by_pair.values())
        characters = doc[-1].idx + len(doc[-1]) if len(doc) else 0
        self.longest = max(self.longest, (len(doc), characters, str(doc.user_data.get(ID, ""))))

    @property
    def instances(self) -> int:
        """Number of instances, including negatives."""
        return self.labels.total()

    @property
    def positives(self) -> int:
        """Number of instances with a relation."""
        return self.instances - self.negatives

    @property
    def ceiling(self) -> float | None:
        """Highest possible micro-F1 with one label per pair: distinct pairs / instances, or None without instances.

        Evaluation counts instances, so the only predicted label of a pair is correct for one of its gold labels.
        """
        return self.pairs / self.positives if self.positives else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        tokens, characters, name = self.longest
        return {
            "documents": self.documents,
            "instances": self.instances,
            "positives": self.positives,
            "negatives": self.negatives,
            "pairs": self.pairs,
            "multi_label_pairs": self.multi_label_pairs,
            "ceiling": None if self.ceiling is None else round(self.ceiling, 4),
            "labels": dict(self.labels.most_common()),
            "longest": {"tokens": tokens, "characters": characters, "id": name},
            "rejects": dict(self.rejects.most_common()),
        }


def summary_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the counts in a summary, formatted for a table, by description."""
    longest, ceiling = summary["longest"], summary["ceiling"]
    return {
        "documents": f"{summary['documents']:,}",
        "annotated instances": f"{summary['instances']:,}",
        "with a relation": f"{summary['positives']:,}",
        "negatives": f"{summary['negatives']:,}",
        "distinct pairs with a relation": f"{summary['pairs']:,}",
        "of these with several labels": f"{summary['multi_label_pairs']:,}",
        "highest micro-F1 with one label per pair": "" if ceiling is None else f"{ceiling:.3f}",
        "longest document": f"{longest['tokens']:,} tokens ({longest['id']})",
    }

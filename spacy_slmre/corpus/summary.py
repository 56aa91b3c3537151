"""Counts of a corpus: documents, pairs by label, ceilings, the longest context, rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc

from spacy_slmre.corpus.gold_docs import ID, format_of
from spacy_slmre.relations import PAIRS


@dataclass
class Summary:
    """Counts of a corpus, fed one document at a time.

    An annotated instance is a pair with one label; a pair with several labels is several instances.

    Attributes:
        documents: Number of documents.
        labels: Instances by label, the negative one included.
        negatives: Instances with the negative label.
        pairs: Distinct pairs that have a relation.
        multi_label_pairs: Those of them that have several different labels.
        longest: Tokens, characters and id of the longest document.
        rejects: What could not be converted, by reason.
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
        benchmark = format_of(doc)
        by_pair: dict[tuple[int, ...], set[str]] = {}
        for relation in getattr(doc._, PAIRS):
            self.labels[relation.label] += 1
            if benchmark and benchmark.is_negative(relation.label):
                self.negatives += 1
            else:
                key = (relation.head.start, relation.head.end, relation.tail.start, relation.tail.end)
                by_pair.setdefault(key, set()).add(relation.label)
        self.pairs += len(by_pair)
        self.multi_label_pairs += sum(len(labels) > 1 for labels in by_pair.values())
        characters = doc[-1].idx + len(doc[-1]) if len(doc) else 0
        size = (len(doc), characters, str(doc.user_data.get(ID, "")))
        self.longest = max(self.longest, size)

    @property
    def instances(self) -> int:
        """Annotated instances, negatives included."""
        return self.labels.total()

    @property
    def positives(self) -> int:
        """Instances with a relation."""
        return self.instances - self.negatives

    @property
    def ceiling(self) -> float | None:
        """Highest micro-F1 of one answer a pair: its distinct pairs over its instances, None without any.

        Counted over instances, as evaluations are: each instance of a pair gets the pair's one answer, which
        is right for one of the pair's labels.
        """
        return self.pairs / self.positives if self.positives else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
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


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A summary's figures, named and formatted, for a table."""
    longest = summary["longest"]
    rows = [
        ("documents", f"{summary['documents']:,}"),
        ("annotated instances", f"{summary['instances']:,}"),
        ("with a relation", f"{summary['positives']:,}"),
        ("negatives", f"{summary['negatives']:,}"),
        ("distinct pairs with a relation", f"{summary['pairs']:,}"),
        ("of these with several labels", f"{summary['multi_label_pairs']:,}"),
        ("longest document", f"{longest['tokens']:,} tokens ({longest['id']})"),
        ("rejected", f"{sum(summary['rejects'].values()):,}"),
    ]
    if summary["ceiling"] is not None and summary["ceiling"] < 1:
        rows.insert(6, ("micro-F1 ceiling of one answer a pair", f"{summary['ceiling']:.3f}"))
    return rows

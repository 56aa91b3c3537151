"""Corpus statistics: documents, pairs by label, the highest possible score, the longest document, rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc

from spacy_slmre.corpus.gold_docs import ID, format_of, negative_label_of
from spacy_slmre.gold import PairKey, gold_pairs, pair_key
from spacy_slmre.metrics import means_no_relation
from spacy_slmre.relations import RELATIONS, Relation, relations_of, user_data_key


def known_rows(doc: Doc) -> list[tuple[Relation, bool]]:
    """Return the pairs of a gold document whose labels are known, each with whether it is negative.

    The document's format decides which label is negative. Without a format, these are the labels that usually mean "no
    relation", and if the document has both pairs and relations, those of the pairs that are not relations.
    """
    annotated = gold_pairs(doc)
    format = format_of(doc)
    relations = None
    if user_data_key(RELATIONS) in doc.user_data:
        relations = {(pair_key(relation.head, relation.tail), relation.label) for relation in relations_of(doc)}

    def is_negative(row: Relation) -> bool:
        if format is not None:
            return format.is_negative(row.label)
        unrelated = relations is not None and (pair_key(row.head, row.tail), row.label) not in relations
        return unrelated or means_no_relation(row.label)

    negative = negative_label_of(doc)
    implied = [
        Relation(*pair, negative) for key, pair in annotated.known_pairs().items() if key not in annotated.labels
    ]
    return [(row, is_negative(row)) for row in annotated.rows] + [(row, True) for row in implied]


@dataclass
class Summary:
    """Statistics of a corpus; documents are added one at a time.

    An instance is a pair with one label, so a pair with several labels counts as several instances. Pairs with unknown
    labels do not count.

    Attributes:
        documents: Number of documents.
        labels: Number of instances by label, including the negative one.
        negatives: Number of instances with the negative label.
        pairs: Number of distinct pairs with a relation.
        pair_labels: Number of distinct labels of these pairs.
        multi_label_pairs: Number of those with several different labels.
        longest: Tokens, characters and id of the longest document.
        rejects: Number of rejects by reason.
    """

    documents: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    negatives: int = 0
    pairs: int = 0
    pair_labels: int = 0
    multi_label_pairs: int = 0
    longest: tuple[int, int, str] = (0, 0, "")
    rejects: Counter[str] = field(default_factory=Counter)

    def add(self, doc: Doc) -> None:
        """Count a document."""
        self.documents += 1
        by_pair: dict[PairKey, set[str]] = {}
        for pair, is_negative in known_rows(doc):
            self.labels[pair.label] += 1
            if is_negative:
                self.negatives += 1
            else:
                by_pair.setdefault(pair_key(pair.head, pair.tail), set()).add(pair.label)
        self.pairs += len(by_pair)
        self.pair_labels += sum(map(len, by_pair.values()))
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
        """Highest possible micro-F1 with one label per pair: pairs / their labels, or None without relations.

        Evaluation counts a pair once for each of its labels, and its only prediction is correct for one of them.
        """
        return self.pairs / self.pair_labels if self.pair_labels else None

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
        "instances": f"{summary['instances']:,}",
        "with a relation": f"{summary['positives']:,}",
        "negatives": f"{summary['negatives']:,}",
        "distinct pairs with a relation": f"{summary['pairs']:,}",
        "of these with several labels": f"{summary['multi_label_pairs']:,}",
        "highest micro-F1 with one label per pair": "" if ceiling is None else f"{ceiling:.3f}",
        "longest document": f"{longest['tokens']:,} tokens ({longest['id']})",
    }

"""Decoding: turn label probabilities into predicted relations.

A pair gets every label with at least the threshold's probability or, without a threshold, its most probable label
unless that is the negative one. Both directions of a pair are decided together:

* The score of a symmetric label is the mean log-probability of both directions, and so is that of a label and its
  inverse; the relation is written in both directions or not at all.
* A label that is not symmetric, or has an inverse, is written in one direction only.

Relations are accepted by score, as long as they do not contradict a better one and no limit of their label is exceeded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from spacy.tokens import Span

from spacy_slmre.instances import DocInstances, RelationInstance
from spacy_slmre.schema import LabelSchema


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """A candidate pair and the labels that the model predicts for it.

    Attributes:
        labels: The most probable labels, including the negative one, with their probabilities, best first.
        truncated: Whether the model saw only part of the context.
    """

    head: Span
    tail: Span
    labels: tuple[tuple[str, float], ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class DocPrediction:
    """The predictions for a document.

    Attributes:
        schema: The labels of the document.
        pairs: Its candidate pairs, except those that are too long for the model.
        relations: The decoded relations as (head, tail, label, score), best first.
        report: Numbers of pairs considered, scored, truncated, and skipped by reason.
    """

    schema: LabelSchema
    pairs: list[PairPrediction]
    relations: list[tuple[Span, Span, str, float]]
    report: dict[str, Any]


@dataclass(frozen=True)
class Decoding:
    """The rules of decoding.

    Attributes:
        threshold: Minimum probability of a relation; None chooses the most probable label of each pair.
        label_thresholds: Thresholds of individual labels.
        max_labels: Maximum number of labels of a pair.
    """

    threshold: float | None = None
    label_thresholds: Mapping[str, float] = field(default_factory=dict)
    max_labels: int = 1

    @cached_property
    def min_threshold(self) -> float:
        """The lowest probability with which a label may be written; 0 without thresholds."""
        return min([0.0 if self.threshold is None else self.threshold, *self.label_thresholds.values()])

    def n_needed(self, n_labels: int) -> int:
        """Return the number of most probable labels of a pair that decide: no others reach a threshold.

        A more probable label does not replace a less probable one: it may miss its own threshold, or exceed a limit of
        the schema.
        """
        if self.threshold is None:
            return 1
        possible = math.floor(1 / self.min_threshold + 1e-9) if self.min_threshold else n_labels
        return max(1, min(possible, n_labels))

    def threshold_of(self, label: str) -> float | None:
        """Return the threshold of a label."""
        return self.label_thresholds.get(label, self.threshold)

    def passes(self, label: str, score: float) -> bool:
        """Return whether a label is probable enough to be written."""
        threshold = self.threshold_of(label)
        return threshold is None or score >= threshold


def top_k(log_probs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k most probable labels, best first; ties are broken by the order of the labels.

    Args:
        log_probs: Log-probabilities (n, n_labels); -inf for labels that are impossible or were not computed.
        k: How many labels to return.

    Returns:
        Columns and log-probabilities, (n, min(k, n_labels)) each; -inf where there are fewer than k labels.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k = {k}, but it must be at least 1.")
    columns = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    return columns, np.take_along_axis(log_probs, columns, axis=1)


def top_labels(log_probs: np.ndarray, schema: LabelSchema, k: int) -> list[tuple[tuple[str, float], ...]]:
    """Return the k most probable labels of each row with their probabilities, best first, without impossible ones."""
    columns, best = top_k(log_probs, k)
    return [
        tuple((schema.names[column], score) for column, score in zip(*row, strict=True) if score > 0)
        for row in zip(columns.tolist(), np.exp(best).tolist(), strict=True)
    ]


def allowed_labels(
    instances: Sequence[RelationInstance], schema: LabelSchema, typed: Sequence[bool]
) -> np.ndarray | None:
    """Return which labels the entity types of each instance allow: bool (n_instances, n_labels).

    None means all labels: the schema has no type constraints, or there are no instances.

    Args:
        instances: The instances.
        schema: Their labels.
        typed: Whether each of them may only have labels that the schema allows for its entity types.
    """
    if not instances or not any(label.types for label in schema.labels):
        return None
    allowed = [schema.allowed(one.head_mention.type, one.tail_mention.type) for one in instances]
    return np.stack(allowed) | ~np.array(typed)[:, None]


@dataclass(frozen=True)
class Directions:
    """How the pairs of documents depend on each other.

    Attributes:
        opposite: Row of each pair in the other direction, (n_instances,); -1 where it is not a candidate.
        mirror: For each label of a pair, the column of the label that then holds in the other direction,
            (n_instances, n_labels); -1 if there is none, or the entity types exclude it.
    """

    opposite: np.ndarray
    mirror: np.ndarray

    @classmethod
    def of_mentions(
        cls, mentions: Sequence[tuple[Any, Any]], schema: LabelSchema, allowed: np.ndarray | None = None
    ) -> Directions:
        """Return the directions for pairs with these keys of head and tail, as `decode` takes them.

        `allowed` is the result of `allowed_labels`.
        """
        row_of = {key: row for row, key in enumerate(mentions)}
        opposite = [row_of.get((tail, head), -1) for head, tail in mentions]
        return cls.from_rows(np.array(opposite, dtype=int), schema, allowed)

    @classmethod
    def from_rows(cls, opposite: np.ndarray, schema: LabelSchema, allowed: np.ndarray | None = None) -> Directions:
        """Return the directions for the rows of pairs in the other direction."""
        columns = [schema.index.get(schema.mirrors.get(name, ""), -1) for name in schema.names]
        mirror = np.where(opposite[:, None] >= 0, np.array(columns)[None], -1)
        if allowed is not None and len(opposite):
            mirror = np.where(allowed[opposite[:, None], mirror], mirror, -1)
        return cls(opposite, mirror)

    def combine(self, log_probs: np.ndarray) -> np.ndarray:
        """Return log-probabilities in which those of mirrored labels are the mean of both directions."""
        others = log_probs[self.opposite[:, None], self.mirror] if len(log_probs) else log_probs
        return np.where(self.mirror >= 0, (log_probs + others) / 2, log_probs)


def incomplete_rows(
    log_probs: np.ndarray, directions: Directions, schema: LabelSchema, decoding: Decoding
) -> np.ndarray:
    """Return the rows of which all labels are needed, because a label also depends on the other direction.

    Args:
        log_probs: Log-probabilities (n_instances, n_labels) of the labels that were computed, -inf for others.
        directions: How the pairs depend on each other.
        schema: The labels.
        decoding: The rules.
    """
    opposite, mirror = directions.opposite, directions.mirror
    needed: set[int] = set()
    for row, column in zip(*np.nonzero(_likely(log_probs, decoding) & (mirror >= 0)), strict=True):
        other = opposite[row]
        if log_probs[other, mirror[row, column]] == -np.inf:
            needed.add(int(other))
        if decoding.threshold is None and schema.negative_label is not None:
            negative = schema.index[schema.negative_label]
            needed |= {int(one) for one in (row, other) if log_probs[one, negative] == -np.inf}
    return np.array(sorted(needed), dtype=int)


def decode(
    log_probs: np.ndarray,
    directions: Directions,
    mentions: Sequence[tuple[Any, Any]],
    schema: LabelSchema,
    decoding: Decoding,
) -> list[tuple[int, int, float]]:
    """Return the relations of all pairs as (row, column, score), best first.

    Args:
        log_probs: Log-probabilities (n_instances, n_labels), complete in the `incomplete_rows`.
        directions: How the pairs depend on each other.
        mentions: Keys of the head and tail of each row, different in different documents.
        schema: The labels.
        decoding: The rules.
    """
    combined = directions.combine(log_probs)
    accepted: dict[tuple[int, int], float] = {}
    n_labels: Counter[int] = Counter()
    per_head: Counter[tuple[Any, int]] = Counter()
    per_tail: Counter[tuple[Any, int]] = Counter()
    for row, column in _candidates(log_probs, combined, directions, schema, decoding):
        score = float(np.exp(combined[row, column]))
        unit = [(row, column)]
        if (mirror := int(directions.mirror[row, column])) >= 0:
            unit.append((int(directions.opposite[row]), mirror))
        unit = [one for one in unit if one not in accepted]
        if not all(
            n_labels[r] < decoding.max_labels
            and decoding.passes(schema.names[c], score)
            and not _contradicts(r, c, accepted, directions.opposite, schema)
            and per_head[mentions[r][0], c] < (schema.labels[c].max_per_head or math.inf)
            and per_tail[mentions[r][1], c] < (schema.labels[c].max_per_tail or math.inf)
            for r, c in unit
        ):
            continue
        for r, c in unit:
            accepted[r, c] = score
            n_labels[r] += 1
            per_head[mentions[r][0], c] += 1
            per_tail[mentions[r][1], c] += 1
    return [(row, column, score) for (row, column), score in accepted.items()]


def mention_keys(instances: Sequence[RelationInstance]) -> list[tuple[Any, Any]]:
    """Return keys of the head and tail of each instance, as `decode` takes them."""
    return [((id(one.context), one.head), (id(one.context), one.tail)) for one in instances]


def _likely(log_probs: np.ndarray, decoding: Decoding) -> np.ndarray:
    """Return which labels a pair may have by itself, bool (n_instances, n_labels)."""
    if decoding.threshold is None:
        likely = np.zeros(log_probs.shape, dtype=bool)
        likely[np.arange(len(log_probs)), log_probs.argmax(axis=1)] = True
    else:
        likely = log_probs >= (math.log(decoding.min_threshold) if decoding.min_threshold else -np.inf)
    return likely & (log_probs > -np.inf)


def _candidates(
    log_probs: np.ndarray, combined: np.ndarray, directions: Directions, schema: LabelSchema, decoding: Decoding
) -> Iterator[tuple[int, int]]:
    """Yield (row, column) of labels that may be written, most probable first."""
    likely = _likely(log_probs if decoding.threshold is None else combined, decoding)
    if schema.negative_label is not None:
        negative = schema.index[schema.negative_label]
        likely[:, negative] = False
        if decoding.threshold is None:
            # A label that is decided in both directions competes with the negative label in both.
            against = (log_probs[:, negative] + log_probs[directions.opposite, negative]) / 2
            likely &= (directions.mirror < 0) | (combined >= against[:, None])
    rows, columns = np.nonzero(likely & (combined > -np.inf))
    for number in np.argsort(-combined[rows, columns], kind="stable"):
        yield int(rows[number]), int(columns[number])


def _contradicts(
    row: int, column: int, accepted: Mapping[tuple[int, int], float], opposite: np.ndarray, schema: LabelSchema
) -> bool:
    """Return whether a label that holds in one direction only was accepted in the other."""
    return schema.names[column] in schema.one_way and (int(opposite[row]), column) in accepted


def make_predictions(
    docs: Sequence[DocInstances],
    schema: LabelSchema,
    log_probs: np.ndarray,
    relations: Sequence[tuple[int, int, float]],
    k: int,
) -> list[DocPrediction]:
    """Turn log-probabilities and decoded relations into predictions for each document.

    Args:
        docs: Documents with n_instances instances in total.
        schema: Their labels.
        log_probs: Log-probabilities (n_instances, n_labels); -inf for impossible labels.
        relations: Result of `decode`.
        k: Number of most probable labels of each pair.
    """
    probable = top_labels(log_probs, schema, k)
    found: dict[int, list[tuple[int, float]]] = {}
    for row, column, score in relations:
        found.setdefault(row, []).append((column, score))
    predictions, row = [], 0
    for doc in docs:
        pairs, doc_relations = [], []
        for (head, tail), truncated in zip(doc.pairs, doc.truncated, strict=True):
            pairs.append(PairPrediction(head, tail, probable[row], truncated))
            doc_relations += [(head, tail, schema.names[column], score) for column, score in found.get(row, ())]
            row += 1
        doc_relations.sort(key=lambda relation: -relation[3])
        predictions.append(DocPrediction(schema, pairs, doc_relations, doc.report))
    return predictions


def check_thresholds(
    where: str,
    threshold: float | str | None,
    label_thresholds: Mapping[str, float],
    labels: Sequence[str] | None = None,
) -> None:
    """Check that thresholds are probabilities, and that label thresholds have known labels.

    The common threshold may also be None or "auto".

    Raises:
        ValueError: A threshold is not a number from 0 to 1, or its label is unknown.
    """
    common = [] if threshold is None or threshold == "auto" else [("threshold", threshold)]
    named = [(f'label_thresholds["{label}"]', value) for label, value in label_thresholds.items()]
    for name, value in [*common, *named]:
        if not isinstance(value, Real) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}: {name} = {value!r} is not a probability (0 to 1).")
    if labels is not None and (unknown := sorted(set(label_thresholds) - set(labels))):
        raise ValueError(
            f"{where}.label_thresholds has unknown labels: {', '.join(unknown)}. The labels are: {', '.join(labels)}."
        )

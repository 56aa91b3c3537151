"""Evaluation of facts: the pairs of mentions of two entities are joined to one pair of entities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from spacy.tokens import Doc

from spacy_slmre.evaluation.gold import EvaluationPair
from spacy_slmre.evaluation.runs import Prediction
from spacy_slmre.evaluation.systems import Answer
from spacy_slmre.facts import combine_scores, entity_keys
from spacy_slmre.gold import PairKey


def join_pairs(
    reference: Doc,
    pairs: Sequence[EvaluationPair],
    answers: Mapping[PairKey, Answer],
    make_prediction: Callable[[EvaluationPair, Answer | None], Prediction],
) -> list[Prediction]:
    """Return one prediction for each ordered pair of entities of a document.

    It has the gold labels of all their mentions, and the labels that the system predicts for any of them, with scores
    combined as those of facts. Text, head and tail are those of the pair of mentions that decides.

    Args:
        reference: The gold document, which says which mentions are the same entity; see `spacy_slmre.facts`.
        pairs: Its pairs of mentions.
        answers: The system's answers.
        make_prediction: Makes the prediction for a pair of mentions.
    """
    entities = entity_keys(reference)
    groups: dict[tuple[str, str], list[EvaluationPair]] = {}
    for pair in pairs:
        head, tail = entities[pair.key[:2]], entities[pair.key[2:]]
        if head != tail:
            groups.setdefault((head, tail), []).append(pair)
    document = pairs[0].id.rpartition("/")[0] if pairs else ""
    ids = {key: f"{document}/{number}" for number, key in enumerate(groups)}
    predictions = []
    for (head, tail), group in groups.items():
        scores: dict[str, list[float]] = {}
        deciding, best = group[0], -1.0
        for pair in group:
            if (answer := answers.get(pair.key)) is None:
                continue
            predicted = answer.labels if answer.labels is not None else filter(None, [answer.predicted])
            of_pair = {label: dict(answer.top).get(label, 1.0) for label in predicted}
            for label, score in of_pair.items():
                scores.setdefault(label, []).append(score)
            # Pairs with a label decide before those without.
            if (strength := max(of_pair.values(), default=0.0)) > best:
                deciding, best = pair, strength
        labels = sorted(scores, key=lambda label: -combine_scores(scores[label]))
        predictions.append(
            replace(
                make_prediction(deciding, answers.get(deciding.key)),
                id=ids[head, tail],
                gold=tuple(dict.fromkeys(label for pair in group for label in pair.gold)),
                predicted=labels[0] if labels else None,
                labels=tuple(labels),
                opposite=ids.get((tail, head), "") if any(pair.opposite for pair in group) else "",
            )
        )
    return predictions

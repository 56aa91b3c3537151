"""Few-shot examples: labeled pairs that a model is given together with the labels.

They are part of a prompt, or labels are fitted to them: by a logistic regression on what the model computes for a pair,
around the scores that it computes without examples. Examples then say which relation a pair has, not whether it has
one: the probability of the negative label does not change. (When it did, the model found too many relations.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from spacy_slmre.documents import RelationDocument
from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.base import ModelError, RelationModel
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.json_files import parse_json

_STEPS = 60
"""Maximum number of steps of the optimizer; it usually converges in fewer."""


def read_examples(path: str | Path) -> tuple[dict[str, Any], ...]:
    """Read few-shot examples from a JSONL file: documents with relations, or labeled instances.

    A document in the form of `RelationDocument` gives an example for each of its relations and annotated pairs.

    Raises:
        ValueError: The file cannot be read, or a line is neither.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f'examples = "{path}" cannot be read: {error.strerror}.') from error
    except UnicodeError as error:
        raise ValueError(f'examples = "{path}" is not a text in UTF-8: {error}.') from error
    examples = []
    for number, line in enumerate(lines, 1):
        try:
            examples += [_check_example(instance).to_dict() for instance in _read_line(line)]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return tuple(examples)


def check_examples(data: Any) -> tuple[dict[str, Any], ...]:
    """Return examples that were stored. Raises TypeError, KeyError or ValueError if they have the wrong form."""
    if not isinstance(data, list):
        raise TypeError(f'"examples" must be a list, not {data!r:.80}')
    return tuple(RelationInstance.from_dict(example).to_dict() for example in data)


def labeled_instances(examples: Iterable[Mapping[str, Any]], schema: LabelSchema) -> list[RelationInstance]:
    """Return examples as instances with entity types as in those of a pipeline.

    Raises:
        ValueError: An example has a label that is not in the schema.
    """
    instances = []
    for data in examples:
        instance = RelationInstance.from_dict(data)
        if instance.label not in schema.index:
            raise ValueError(
                f'A few-shot example has the label "{instance.label}", which is not in the schema. Its labels are: '
                f"{', '.join(schema.names)}."
            )
        sides = (instance.head_mention, instance.tail_mention)
        head, tail = ((side.start, side.end, schema.map_type(side.type)) for side in sides)
        instances.append(RelationInstance.from_offsets(instance.context.text, head, tail, instance.label))
    return instances


def positive_examples(
    model: RelationModel, examples: Iterable[Mapping[str, Any]], schema: LabelSchema, max_tokens: int
) -> tuple[list[RelationInstance], torch.Tensor]:
    """Return the examples of positive labels, truncated to what a model reads, and the columns of their labels, (n,).

    Raises:
        ValueError: An example has a label that is not in the schema.
        ModelError: The model does not read both arguments of an example.
    """
    columns = {label.name: column for column, label in enumerate(schema.positive_labels)}
    instances = [instance for instance in labeled_instances(examples, schema) if instance.label in columns]
    fitting = model.truncate(instances, schema, max_tokens)
    for instance, truncated in zip(instances, fitting, strict=True):
        if truncated is None:
            text = instance.context.text
            raise ModelError(f'The arguments of a few-shot example are too far apart for the model: "{text[:60]} …".')
    return [one for one in fitting if one is not None], torch.tensor([columns[one.label or ""] for one in instances])


@torch.inference_mode(False)
@torch.enable_grad()
def fit_labels(logits: torch.Tensor, features: torch.Tensor, gold: torch.Tensor, *, l2: float) -> torch.Tensor:
    """Return weights (n_labels, width), such that logits + features @ weights.T fit the gold labels of examples.

    They minimize the cross-entropy, summed over examples, plus `l2` times the sum of their squares.

    Args:
        logits: Logits or log-probabilities of the positive labels without examples, (n, n_labels).
        features: What the model computes for the pair of each example, (n, width).
        gold: The column of the label of each example, (n,).
        l2: Strength of the L2 penalty.
    """
    logits, features, gold = (tensor.detach().clone() for tensor in (logits, features, gold))
    weights = features.new_zeros(logits.shape[1], features.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        entropy = F.cross_entropy(logits + features @ weights.T, gold, reduction="sum")
        total = entropy + l2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach()


def shift_labels(logits: torch.Tensor, shifts: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Add shifts to the logits of positive labels; the probability that one of them holds does not change.

    Args:
        logits: Logits or log-probabilities of all labels, (n, n_labels); -inf for impossible ones.
        shifts: What to add to each positive label, (n, n_positive_labels).
        schema: The labels.
    """
    columns = [schema.index[label.name] for label in schema.positive_labels]
    before = logits[:, columns]
    after = before + shifts.to(before)
    mass, new_mass = (values.logsumexp(dim=1, keepdim=True) for values in (before, after))
    shifted = logits.clone()
    shifted[:, columns] = torch.where(mass.isfinite(), after + mass - new_mass, before)
    return shifted


def _read_line(line: str) -> list[RelationInstance]:
    if not line.strip():
        return []
    data = parse_json(line)
    if isinstance(data, dict) and "relations" in data:
        return _document_examples(RelationDocument.from_dict(data))
    return [RelationInstance.from_dict(data)]


def _check_example(instance: RelationInstance) -> RelationInstance:
    """Return a few-shot example. Raises ValueError if it has no label, or is a pair of a mention with itself."""
    if not isinstance(instance.label, str) or not instance.label:
        raise ValueError('an example needs a "label"')
    head, tail = instance.head_mention, instance.tail_mention
    if (head.start, head.end) == (tail.start, tail.end):
        raise ValueError(f'the head and the tail of an example are the same mention, "{instance.text_of(head)}"')
    return instance


def _document_examples(document: RelationDocument) -> list[RelationInstance]:
    pairs = {(pair.head.key, pair.tail.key, pair.label) for pair in (*document.relations, *(document.pairs or ()))}
    return [RelationInstance.from_offsets(document.text, head, tail, label) for head, tail, label in sorted(pairs)]

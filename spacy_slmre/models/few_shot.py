"""Few-shot examples: labeled pairs that a model is given together with the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spacy_slmre.documents import RelationDocument
from spacy_slmre.instances import RelationInstance
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.json_files import parse_json


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

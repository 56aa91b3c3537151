"""What the answers to the prompts of a document come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacy_slmre.label_parser import answer_parser
from spacy_slmre.llm.chat import Unanswered
from spacy_slmre.pipeline.doc_instances import DocInstances
from spacy_slmre.relations import Record, make_record
from spacy_slmre.schema import LabelSchema


@dataclass(frozen=True)
class Outcome:
    """What is written to a document.

    Attributes:
        relations: Records of relations.
        answers: Every answer, as `write_answers` takes them.
        numbers: How many answers were "out_of_schema", "ill_typed" and "unanswered".
        reason: Why the first pair without an answer has none; None where all have one.
    """

    relations: list[Record]
    answers: list[Record]
    numbers: dict[str, int]
    reason: str | None


class ResponseReader:
    """Reads the answers to the prompts of documents, for one label set."""

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self._parse = answer_parser(schema)

    def __call__(self, asked: DocInstances, responses: Sequence[Any]) -> Outcome:
        """What the answers to a document's prompts come to.

        Raises:
            ValueError: There are more or fewer answers than prompts.
        """
        if len(responses) != len(asked.pairs):
            raise ValueError(
                f"The model gave {len(responses)} answers to the {len(asked.pairs)} prompts of the document "
                f'"{asked.doc.text[:50]}". A model has to answer each prompt, in their order.'
            )
        numbers: Counter[str] = Counter(out_of_schema=0, ill_typed=0, unanswered=0)
        relations: list[Record] = []
        answers: list[Record] = []
        reason: str | None = None
        for number, ((head, tail), response) in enumerate(zip(asked.pairs, responses, strict=True)):
            answered = isinstance(response, str) and not isinstance(response, Unanswered)
            label = self._label(response) if answered else None
            answers.append(
                {
                    "head": [head.start_char, head.end_char],
                    "tail": [tail.start_char, tail.end_char],
                    "answer": str(response) if answered else None,
                    "label": label,
                }
            )
            if not answered:
                numbers["unanswered"] += 1
                reason = reason or getattr(response, "reason", f"the model gave {response!r:.80}")
            elif label is None:
                numbers["out_of_schema"] += 1
            elif label != self.schema.negative_label:
                if self._types_allow(label, asked, number):
                    relations.append(make_record(asked.doc, (head, tail, label)))
                else:
                    numbers["ill_typed"] += 1
        return Outcome(relations, answers, dict(numbers), reason)

    def _label(self, response: str) -> str | None:
        """The name of the label that was meant; None for an answer outside of the schema."""
        said = self._parse(response)
        if said is None:
            return self.schema.negative_label
        return said if said in self.schema.index else None

    def _types_allow(self, label: str, asked: DocInstances, number: int) -> bool:
        instance = asked.instances[number]
        allowed = self.schema.allowed(instance.head_mention.type, instance.tail_mention.type)
        return not asked.typed or bool(allowed[self.schema.index[label]])

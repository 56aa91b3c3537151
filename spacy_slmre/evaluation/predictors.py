"""How systems answer: each gives, for the pairs of some documents, what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacy.tokens import Doc, Span

from spacy_slmre.instances import make_instances
from spacy_slmre.label_parser import LabelParser
from spacy_slmre.models.causal_lm.generation import generate_answers
from spacy_slmre.models.causal_lm.model import SmallLM
from spacy_slmre.pipeline.relation_extractor import RelationExtractor
from spacy_slmre.relations import ANSWERS

if TYPE_CHECKING:
    from spacy_llm.pipeline import LLMWrapper

PairKey = tuple[int, int, int, int]
"""Head start, head end, tail start, tail end, in characters of the document."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system says of a pair.

    Attributes:
        predicted: The label; None is the negative one.
        top: The most probable labels and their probabilities, where the system gives some.
        text: What it wrote, where it generates.
        truncated: Whether it saw a part of the context only.
    """

    predicted: str | None
    top: tuple[tuple[str, float], ...] = ()
    text: str | None = None
    truncated: bool = False


System = Callable[[Sequence[Doc]], list[dict[PairKey, Answer]]]
"""Answers the candidate pairs of documents; a pair without an answer is missing."""


def key_of(head: Span, tail: Span) -> PairKey:
    """The key of a pair."""
    return head.start_char, head.end_char, tail.start_char, tail.end_char


def scoring(pipe: RelationExtractor, k: int) -> System:
    """The component's own way: probabilities over the labels."""

    def answer(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        answers = []
        for pairs in pipe.predict_proba(docs, k):
            found = {}
            for pair in pairs:
                best = pair.labels[0] if pair.labels else None
                label = best[0] if best is not None and pipe.passes_threshold(*best) else None
                found[key_of(pair.head, pair.tail)] = Answer(label, pair.labels, None, pair.truncated)
            answers.append(found)
        return answers

    return answer


def asking(component: LLMWrapper) -> System:
    """An LLM's answers, as our spacy-llm task has them."""
    parse = LabelParser(component.task.schema).parse

    def answer(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        answers: list[dict[PairKey, Answer]] = []
        for doc in component.pipe(iter(docs), batch_size=len(docs)):
            found = {}
            for one in getattr(doc._, ANSWERS):
                if one["answer"] is not None:
                    found[*one["head"], *one["tail"]] = Answer(parse(one["answer"]), (), one["answer"])
            answers.append(found)
        return answers

    return answer


def generating(pipe: RelationExtractor, lm: SmallLM, max_new_tokens: int) -> System:
    """The study's way: the model writes what it will, and the answer is compared with the labels."""
    parse = LabelParser(pipe.schema).parse

    def answer(docs: Sequence[Doc]) -> list[dict[PairKey, Answer]]:
        keys: list[tuple[int, PairKey, bool]] = []
        asked = []
        for number, doc in enumerate(docs):
            pairs = pipe.candidates(doc, pipe.schema).pairs
            whole = make_instances(doc, pairs, pipe.schema)
            fitting = lm.truncate(whole, pipe.schema, pipe.max_context_tokens)
            for pair, fit, instance in zip(pairs, fitting, whole, strict=True):
                if fit is not None:
                    keys.append((number, key_of(*pair), fit is not instance))
                    asked.append(fit)
        texts = generate_answers(lm, asked, pipe.schema, max_new_tokens=max_new_tokens)
        answers: list[dict[PairKey, Answer]] = [{} for _ in docs]
        for (number, key, truncated), text in zip(keys, texts, strict=True):
            answers[number][key] = Answer(parse(text), (), text, truncated)
        return answers

    return answer

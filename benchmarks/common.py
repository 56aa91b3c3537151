"""Code that several benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc

from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.gold_docs import format_of
from spacy_slmre.instances import RelationInstance
from spacy_slmre.pipeline.examples import make_gold_instances
from spacy_slmre.relations import install_extensions
from spacy_slmre.schema import LabelSchema


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a module docstring as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)


def known_schema(docs: Sequence[Doc]) -> LabelSchema | None:
    """Return the labels of the format of a corpus, given at least one of its documents, if the format has any."""
    return getattr(format_of(docs[0]), "schema", None)


def read_instances(
    corpus: Path, schema: LabelSchema | None = None, limit: int | None = None
) -> tuple[list[RelationInstance], LabelSchema]:
    """Read the gold instances of a converted corpus.

    Args:
        corpus: A .spacy file or a folder of them.
        schema: The labels; by default those of the corpus's format.
        limit: Stop after the document that reaches this number of instances.
    """
    install_extensions()
    instances: list[RelationInstance] = []
    for doc in read_docs(corpus, spacy.blank("en").vocab):
        if schema is None:
            schema = known_schema([doc])
        if schema is None:
            raise SystemExit(f"{corpus} has no label set of its own: convert it from a benchmark.")
        instances += make_gold_instances(doc, schema)
        if limit is not None and len(instances) >= limit:
            break
    if schema is None:
        raise SystemExit(f"{corpus} contains no documents.")
    return instances, schema


def micro_f1(metrics: Mapping[str, Any]) -> str:
    """Format the micro-F1 of an evaluation run with its interval."""
    interval = metrics["interval"]
    return f"{metrics['micro']['f']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"

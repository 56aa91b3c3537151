"""What is asked about a document: its instances, and the report of what is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span

from spacy_slmre.candidates import CandidateGenerator
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.schema import LabelSchema

Fit = Callable[[Sequence[RelationInstance]], Sequence[RelationInstance | None]]
"""Shortens contexts around their pairs; None for a pair that does not fit."""


@dataclass
class DocInstances:
    """A document with its instances, before they are labelled.

    Attributes:
        doc: The document.
        pairs: Its candidate pairs that fit.
        instances: The instance of each.
        shortened: Whether that has a part of the context only.
        typed: Whether a pair may only have labels that the schema allows for its entity types.
        report: Numbers of pairs considered, scored, shortened, and skipped by reason.
    """

    doc: Doc
    pairs: list[tuple[Span, Span]]
    instances: list[RelationInstance]
    shortened: list[bool]
    typed: bool
    report: dict[str, Any]


def make_doc_instances(doc: Doc, propose: CandidateGenerator, schema: LabelSchema, fit: Fit) -> DocInstances:
    """The instances of a document, and the report of what is left out."""
    candidates = propose(doc, schema)
    instances = make_instances(doc, candidates.pairs, schema)
    fitting = fit(instances)
    kept = [
        (pair, fit, fit is not whole)
        for pair, fit, whole in zip(candidates.pairs, fitting, instances, strict=True)
        if fit is not None
    ]
    skipped = dict(candidates.skipped)
    if too_long := len(instances) - len(kept):
        skipped["too_long"] = too_long
    report = {
        "considered": candidates.considered,
        "scored": len(kept),
        "shortened": sum(shortened for *_, shortened in kept),
        "skipped": skipped,
    }
    pairs, fits, shortened = ([one[part] for one in kept] for part in range(3))
    return DocInstances(doc, pairs, fits, shortened, candidates.typed, report)  # type: ignore[arg-type]


def describe_truncation(report: Mapping[str, Any], report_name: str) -> str | None:
    """A sentence for people if pairs were left out, or asked about in part of their context, for length."""
    skipped = report["skipped"]
    cut = {reason: skipped[reason] for reason in ("cap", "too_long") if skipped.get(reason)}
    if report["shortened"]:
        cut["shortened"] = report["shortened"]
    if not cut:
        return None
    told = ", ".join(f"{number} {reason}" for reason, number in cut.items())
    return (
        "a document is too long or too full for all of its pairs to be asked about in full "
        f"({told}); doc._.{report_name} says what was left out. Later documents are "
        "counted there without a warning."
    )

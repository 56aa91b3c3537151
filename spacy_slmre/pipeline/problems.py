"""Find pipeline problems that show up when a document is annotated, such as settings that leave no pair to score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spacy.tokens import Doc

from spacy_slmre.candidates import CandidateGenerator, EntityPairs, GivenPairs
from spacy_slmre.instances import describe_truncation
from spacy_slmre.relations import CANDIDATES, owns_attribute, report_name, user_data_key
from spacy_slmre.schema import LabelSchema


def find_problems(
    doc: Doc, candidates: CandidateGenerator, schema: LabelSchema, report: Mapping[str, Any], attr: str
) -> Iterator[tuple[str, str]]:
    """Yield the topic and the text of each warning about an annotated document.

    Args:
        doc: The document.
        candidates: The candidate generator.
        schema: The labels of the document.
        report: The report of skipped pairs; see `make_doc_instances`.
        attr: Relations were written to `doc._.<attr>`.
    """
    if truncation := describe_truncation(report, report_name(attr)):
        yield "truncation", truncation
    if not owns_attribute(attr):
        yield (
            "attribute",
            (
                f"another package has overwritten doc._.{attr}, so it does not return the predicted relations. Choose "
                'another name with the setting attr="…".'
            ),
        )
    if cause := describe_no_pairs(doc, candidates, schema, report):
        yield cause


def describe_no_pairs(
    doc: Doc, candidates: CandidateGenerator, schema: LabelSchema, report: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Return the cause and a warning if a setting or another component is the reason that no pair was scored.

    There is no warning about a document with fewer than two entities, about entities that are too far apart, or about
    entities whose types are known, but not in this combination. For the arguments, see `find_problems`.
    """
    if report["scored"] or not len(doc):
        return None
    if isinstance(candidates, GivenPairs):
        if user_data_key(CANDIDATES) in doc.user_data:
            return None
        return "candidates", (
            f"no pair was scored, because doc._.{CANDIDATES} is not set and `candidates` is GivenPairs. To score pairs "
            'of entities, set candidates = {"@misc": "spacy-slmre.EntityPairs.v1"}.'
        )
    key = candidates.spans_key if isinstance(candidates, EntityPairs) else None
    if key is not None and key not in doc.spans:
        groups = ", ".join(f'"{name}"' for name in doc.spans) or "none"
        return "spans", (
            f'no pair was scored, because the document has no span group "{key}" (candidates.spans_key). Its groups: '
            f"{groups}. Is the component that creates the group missing, or is it after this one?"
        )
    if key is None and not doc.has_annotation("ENT_IOB"):
        return "entities", (
            "no pair was scored, because no component before this one finds entities. Add one (for instance a trained "
            '"ner" or an "entity_ruler") before this component, or assign doc.ents.'
        )
    known = schema.allowed_types
    if known is None or not report["skipped"].get("type"):
        return None
    types = {span.label_ for span in (doc.ents if key is None else doc.spans[key])}
    if unknown := sorted(name for name in types if not schema.allows_type(schema.map_type(name))):
        return "types", (
            f"all {report['skipped']['type']} pairs were skipped because of their entity types: no label allows "
            f"{', '.join(unknown)}. The labels allow {', '.join(sorted(known))}. Map your types to these with the "
            f'setting type_map, for instance {{"{unknown[0]}": "{min(known)}"}}, or change "types" in the schema.'
        )
    return None

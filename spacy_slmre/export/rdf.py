"""Relations as RDF: N-Triples, Turtle and JSON-LD, written as a stream.

Each relation is a triple between its entities, with a second one from tail to head if its label is symmetric or has an
inverse, so that queries need no reasoner. One `rdf:Statement` describes its source: mentions and sentence as strings of
their document (NIF), score and count, and the model (PROV-O). The statement of a fact has a node with this information
for each source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from spacy_slmre.documents import EntityMention
from spacy_slmre.export.edges import Edge, EdgeSource, ExportError, Node
from spacy_slmre.ontology import ABSOLUTE_IRI

NIF = "http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#"
ITSRDF = "http://www.w3.org/2005/11/its/rdf#"
OWL = "http://www.w3.org/2002/07/owl#"
PROV = "http://www.w3.org/ns/prov#"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDFS = "http://www.w3.org/2000/01/rdf-schema#"
XSD = "http://www.w3.org/2001/XMLSchema#"
TYPE = f"{RDF}type"
LABEL = f"{RDFS}label"
WIKIDATA_ENTITY = "http://www.wikidata.org/entity/"
WIKIDATA_PROPERTY = "http://www.wikidata.org/prop/direct/"
DEFAULT_BASE = "urn:slmre:"
"""Default prefix of all our IRIs."""

_PREFIXES = {"rdf": RDF, "rdfs": RDFS, "xsd": XSD, "owl": OWL, "prov": PROV, "nif": NIF, "itsrdf": ITSRDF}
# Knowledge base ids that are IRIs; all other ids become IRIs below the base.
_WEB_IRI = re.compile(r"https?://[^\x00-\x20<>\"{}|\\^`\x7f]+")
_WIKIDATA_PROPERTY_ID = re.compile(r"P[1-9]\d*")


class Literal(NamedTuple):
    """An RDF literal: its text, and the IRI of its datatype unless it is a string."""

    text: str
    datatype: str = ""


# A subject's IRI, and its predicates with their objects. IRIs are plain strings, quoted or checked where they are made,
# because creating rdflib's terms would dominate the time of an export.
PropertyValues = list[tuple[str, "str | Literal"]]
Description = tuple[str, PropertyValues]


@dataclass(frozen=True)
class Namespace:
    """The IRIs of an export.

    Attributes:
        base: Prefix of all IRIs, except those of Wikidata, of the labels' schema and of `properties`.
        properties: Properties by label: IRIs or Wikidata ids (P19). They take precedence over IRIs in the schema of the
            labels, and these over `wikidata_properties`; labels that are Wikidata ids need none.

    Raises:
        ExportError: The base or a property is not an IRI.
    """

    base: str = DEFAULT_BASE
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not ABSOLUTE_IRI.fullmatch(self.base) or self.base[-1] not in "/:":
            raise ExportError(
                f'"{self.base}" is not a base IRI. It must be absolute, without spaces, and end with / or '
                ":, for example https://example.org/relations/"
            )
        for label, iri in self.properties.items():
            if not isinstance(iri, str) or not (ABSOLUTE_IRI.fullmatch(iri) or _WIKIDATA_PROPERTY_ID.fullmatch(iri)):
                raise ExportError(
                    f'The property of "{label}" is {iri!r}, but must be an absolute IRI or a Wikidata id (P19).'
                )

    @property
    def prefixes(self) -> dict[str, str]:
        """The prefixes of Turtle and JSON-LD."""
        return {**_PREFIXES, "slmre": f"{self.base}vocabulary/"}

    def term(self, name: str) -> str:
        """Return the IRI of a term of our own vocabulary."""
        return f"{self.base}vocabulary/{name}"

    def resource(self, kind: str, name: str) -> str:
        """Return the IRI of a document, entity, entity type, model, …."""
        return f"{self.base}{kind}/{_quoted(name)}"

    def property(self, label: str, iri: str = "") -> str:
        """Return the IRI of the property of a label, given its IRI in its schema, if any."""
        if label not in self.properties and ABSOLUTE_IRI.fullmatch(iri):
            return iri
        iri = self.properties.get(label) or wikidata_properties().get(label, label)
        if _WIKIDATA_PROPERTY_ID.fullmatch(iri):
            return WIKIDATA_PROPERTY + iri
        return iri if label in self.properties else self.resource("relation", label)

    def linked(self, kb_id: str) -> str:
        """Return the IRI of an entity in a knowledge base."""
        if re.fullmatch(r"Q[1-9]\d*", kb_id):
            return WIKIDATA_ENTITY + kb_id
        return kb_id if _WEB_IRI.fullmatch(kb_id) else self.resource("id", kb_id)

    def entity(self, node: Node) -> str:
        """Return the IRI of a merged entity: the one in the knowledge base, or one made from its key."""
        return self.linked(node.kb_id) if node.kb_id else self.resource("entity", node.key)

    def part(self, document: str, start: int, end: int, type: str = "") -> str:
        """Return the IRI of a part of a document's text, or of a mention if there is an entity type."""
        suffix = f"&type={_quoted(type)}" if type else ""
        return f"{self.resource('document', document)}#char={start},{end}{suffix}"

    def mention(self, source: EdgeSource, mention: EntityMention) -> str:
        """Return the IRI of a mention."""
        return self.part(source.document, mention.start, mention.end, mention.type)


@cache
def wikidata_properties() -> dict[str, str]:
    """Return the Wikidata ids of those labels of the general schema that are named after a property."""
    table = files("spacy_slmre") / "schemas" / "wikidata_properties.json"
    return json.loads(table.read_text("utf-8"))


def describe(edges: Iterable[Edge], namespace: Namespace, *, merged: bool) -> Iterator[Description]:
    """Yield facts by subject; a subject may occur repeatedly, with the same or additional facts."""
    term = namespace.term
    seen: set[str] = set()
    labels: set[tuple[str, str]] = set()
    models: set[str] = set()
    document = None
    for edge in edges:
        if not merged and edge.source.document != document:
            # Documents share no subjects, so only those of one document are kept.
            document = edge.source.document
            seen.clear()
        if merged:
            head, tail = namespace.entity(edge.head), namespace.entity(edge.tail)
        else:
            head, tail = (namespace.mention(edge.source, side) for side in (edge.source.head, edge.source.tail))
        relation = namespace.property(edge.label, edge.iri)
        inverse = namespace.property(edge.inverse, edge.inverse_iri) if edge.inverse else ""
        if (edge.label, edge.inverse) not in labels:  # documents may have different schemas
            labels.add((edge.label, edge.inverse))
            facts: PropertyValues = [(TYPE, f"{OWL}SymmetricProperty")] if edge.symmetric else []
            yield relation, [(TYPE, f"{RDF}Property"), (LABEL, Literal(edge.label)), *facts]
            if inverse and not edge.symmetric:
                facts = [(LABEL, Literal(edge.inverse)), (f"{OWL}inverseOf", relation)]
                yield inverse, [(TYPE, f"{RDF}Property"), *facts]
        for node, iri in ((edge.head, head), (edge.tail, tail)):
            if iri not in seen:
                seen.add(iri)
                yield iri, _entity_facts(node, namespace, merged=merged)
        yield head, [(relation, tail)]
        if inverse:
            yield tail, [(inverse, head)]
        statement = namespace.resource("statement", edge.key)
        facts = [(TYPE, f"{RDF}Statement"), (LABEL, Literal(edge.label))]
        facts += [(f"{RDF}subject", head), (f"{RDF}predicate", relation), (f"{RDF}object", tail)]
        facts.append((term("score"), _double(edge.score)))
        if merged:
            sources = [f"{statement}/{number}" for number in range(1, edge.count + 1)]
            facts.append((term("count"), Literal(str(edge.count), f"{XSD}integer")))
            yield statement, facts + [(term("source"), iri) for iri in sources]
            for iri, source in zip(sources, edge.sources, strict=True):
                yield iri, [(term("score"), _double(source.score)), *_source_facts(source, namespace)]
        else:
            yield statement, facts + _source_facts(edge.source, namespace)
        for source in edge.sources:
            yield from _describe_text(source, namespace, seen)
            if source.model and source.model not in models:
                models.add(source.model)
                agent: PropertyValues = [(TYPE, f"{PROV}SoftwareAgent"), (LABEL, Literal(source.model))]
                yield namespace.resource("model", source.model), agent


def _entity_facts(node: Node, namespace: Namespace, *, merged: bool) -> PropertyValues:
    facts: PropertyValues = [(LABEL, Literal(node.text)), (namespace.term("key"), Literal(node.key))]
    if node.type:
        facts.append((TYPE, namespace.resource("type", node.type)))
        facts.append((namespace.term("type"), Literal(node.type)))
    if node.kb_id:
        facts.append((namespace.term("id"), Literal(node.kb_id)))
        if not merged:
            facts.append((f"{OWL}sameAs", namespace.linked(node.kb_id)))
    return facts


def _source_facts(source: EdgeSource, namespace: Namespace) -> PropertyValues:
    facts: PropertyValues = [
        (f"{PROV}wasDerivedFrom", namespace.part(source.document, source.start, source.end)),
        (namespace.term("headMention"), namespace.mention(source, source.head)),
        (namespace.term("tailMention"), namespace.mention(source, source.tail)),
    ]
    if source.model:
        facts.append((f"{PROV}wasAttributedTo", namespace.resource("model", source.model)))
    return facts


def _describe_text(source: EdgeSource, namespace: Namespace, seen: set[str]) -> Iterator[Description]:
    """Describe document, sentence and mentions, each once."""
    document = namespace.resource("document", source.document)
    if document not in seen:
        seen.add(document)
        yield document, [(TYPE, f"{NIF}Context"), (namespace.term("name"), Literal(source.document))]

    def string(iri: str, kind: str, start: int, end: int, text: str, facts: PropertyValues) -> Iterator[Description]:
        # A sentence that consists of a mention has the same IRI as that mention.
        if f"{kind} {iri}" in seen:
            return
        seen.add(f"{kind} {iri}")
        bounds: PropertyValues = [(f"{NIF}beginIndex", _index(start)), (f"{NIF}endIndex", _index(end))]
        context: PropertyValues = [(TYPE, f"{NIF}{kind}"), (f"{NIF}referenceContext", document)]
        yield iri, [*context, *bounds, (f"{NIF}anchorOf", Literal(text)), *facts]

    sentence = namespace.part(source.document, source.start, source.end)
    yield from string(sentence, "Sentence", source.start, source.end, source.sentence, [])
    for mention in (source.head, source.tail):
        facts: PropertyValues = [(namespace.term("type"), Literal(mention.type))] if mention.type else []
        if mention.kb_id:
            facts.append((f"{ITSRDF}taIdentRef", namespace.linked(mention.kb_id)))
            facts.append((namespace.term("id"), Literal(mention.kb_id)))
        iri = namespace.mention(source, mention)
        yield from string(iri, "Phrase", mention.start, mention.end, mention.text, facts)


def _double(value: float) -> Literal:
    return Literal(repr(float(value)), f"{XSD}double")


def _index(value: int) -> Literal:
    return Literal(str(value), f"{XSD}nonNegativeInteger")


# -- writing ---------------------------------------------------------------------------------------------


def write_ntriples(path: Path, descriptions: Iterable[Description], namespace: Namespace) -> None:
    """Write one triple per line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for subject, facts in descriptions:
            stream.write("".join([f"<{subject}> <{fact}> {_term(value)} .\n" for fact, value in facts]))


def write_turtle(path: Path, descriptions: Iterable[Description], namespace: Namespace) -> None:
    """Write the prefixes, then one paragraph per subject."""
    prefixes = namespace.prefixes

    # A small cache is enough, because only vocabulary terms recur.
    @lru_cache(maxsize=512)
    def shorten(iri: str) -> str:
        for prefix, space in prefixes.items():
            local = iri.removeprefix(space)
            if local != iri and re.fullmatch(r"[A-Za-z]\w*", local, re.ASCII):
                return f"{prefix}:{local}"
        return f"<{iri}>"

    def term(fact: str, value: str | Literal) -> str:
        return shorten(value) if fact == TYPE and isinstance(value, str) else _term(value, shorten)

    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for prefix, iri in prefixes.items():
            stream.write(f"@prefix {prefix}: <{iri}> .\n")
        for subject, facts in descriptions:
            lines = " ;\n    ".join([f"{shorten(fact)} {term(fact, value)}" for fact, value in facts])
            stream.write(f"\n<{subject}>\n    {lines} .\n")


def write_jsonld(path: Path, descriptions: Iterable[Description], namespace: Namespace) -> None:
    """Write one JSON document with a context and a `@graph` of one object per line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'{{"@context": {json.dumps(namespace.prefixes)},\n"@graph": [')
        separator = "\n"
        for subject, facts in descriptions:
            entry: dict[str, Any] = {"@id": subject}
            for fact, value in facts:
                entry.setdefault(fact, []).append(_json_object(value))
            stream.write(separator + json.dumps(entry, ensure_ascii=False))
            separator = ",\n"
        stream.write("\n]}\n")


# JSON escapes are also valid in RDF strings.
_escape = json.JSONEncoder(ensure_ascii=False).encode


def _term(value: str | Literal, shorten: Callable[[str], str] = "<{}>".format) -> str:
    """Return an object in the syntax that N-Triples and Turtle share."""
    if isinstance(value, str):
        return f"<{value}>"
    return _escape(value.text) + (f"^^{shorten(value.datatype)}" if value.datatype else "")


def _json_object(value: str | Literal) -> dict[str, str]:
    if isinstance(value, str):
        return {"@id": value}
    return {"@value": value.text, "@type": value.datatype} if value.datatype else {"@value": value.text}


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")

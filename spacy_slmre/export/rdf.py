"""Relations as RDF: N-Triples, Turtle and JSON-LD, written as a stream and read back with rdflib.

Each relation is a triple between its entities, and an `rdf:Statement` about that triple says where it comes
from: mentions and sentence as strings of their document (NIF), score and count, and the model (PROV-O). A
statement of merged relations has such a note for each of its sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from spacy_slmre.documents import EntityMention
from spacy_slmre.export.edges import DEFAULT_BASE, Edge, ExportError, Node, Source
from spacy_slmre.schema import LabelSchema

if TYPE_CHECKING:
    import rdflib

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

_PREFIXES = {"rdf": RDF, "rdfs": RDFS, "xsd": XSD, "owl": OWL, "prov": PROV, "nif": NIF, "itsrdf": ITSRDF}
_IRI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`\x7f]+")
# A whole IRI given as a knowledge base id; other ids, however they look, are put under the base.
_WEB_IRI = re.compile(r"https?://[^\x00-\x20<>\"{}|\\^`\x7f]+")


class Value(NamedTuple):
    """A literal: its text, and the IRI of its datatype where it is no string."""

    text: str
    datatype: str = ""


# The IRI of a subject with what is said of it: IRIs of predicates, and IRIs or values. Plain strings, since
# rdflib's terms take most of the time of an export; every IRI is quoted or checked where it is made.
Description = tuple[str, list[tuple[str, "str | Value"]]]


@dataclass(frozen=True)
class Vocabulary:
    """The IRIs of an export.

    Attributes:
        base: The IRI that all others begin with, unless they are Wikidata's or given.
        properties: Properties of labels: whole IRIs or Wikidata's numbers (P19). A label that is such a
            number needs none, and for others they come before `default_properties`.

    Raises:
        ExportError: The base or a property is no IRI.
    """

    base: str = DEFAULT_BASE
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _IRI.fullmatch(self.base) or self.base[-1] not in "/:":
            raise ExportError(
                f'"{self.base}" is no base IRI: give an absolute one without spaces that ends with / or :, '
                "such as https://example.org/relations/"
            )
        for label, iri in self.properties.items():
            if not isinstance(iri, str) or not (_IRI.fullmatch(iri) or re.fullmatch(r"P[1-9]\d*", iri)):
                raise ExportError(
                    f'The property of "{label}" is {iri!r}: give an absolute IRI or a number of Wikidata.'
                )

    @property
    def prefixes(self) -> dict[str, str]:
        """What the beginnings of IRIs are shortened to."""
        return {**_PREFIXES, "slmre": f"{self.base}vocabulary/"}

    def term(self, name: str) -> str:
        """A term of our own."""
        return f"{self.base}vocabulary/{name}"

    def property(self, label: str) -> str:
        """The property of a label."""
        iri = self.properties.get(label) or default_properties().get(label, label)
        if re.fullmatch(r"P[1-9]\d*", iri):
            return WIKIDATA_PROPERTY + iri
        return iri if label in self.properties else f"{self.base}relation/{_quoted(label)}"

    def identified(self, kb_id: str) -> str:
        """The IRI of what a knowledge base identifies."""
        if re.fullmatch(r"Q[1-9]\d*", kb_id):
            return WIKIDATA_ENTITY + kb_id
        return kb_id if _WEB_IRI.fullmatch(kb_id) else f"{self.base}id/{_quoted(kb_id)}"

    def type(self, name: str) -> str:
        """The class of an entity type."""
        return f"{self.base}type/{_quoted(name)}"

    def document(self, id: str) -> str:
        """The IRI of a document's text."""
        return f"{self.base}document/{_quoted(id)}"

    def part(self, document: str, start: int, end: int, type: str = "") -> str:
        """The IRI of some characters of a document (and of a mention of an entity of a type)."""
        suffix = f"&type={_quoted(type)}" if type else ""
        return f"{self.document(document)}#char={start},{end}{suffix}"

    def entity(self, node: Node) -> str:
        """The IRI of joined mentions: that of the knowledge base, or one made of what they were joined by."""
        if node.kb_id:
            return self.identified(node.kb_id)
        return f"{self.base}entity/{_quoted(node.key)}"


@cache
def default_properties() -> dict[str, str]:
    """Wikidata's numbers of the labels of the general schema that are the names of its properties."""
    table = json.loads(
        (files("spacy_slmre.study.benchmarks") / "labels" / "wikidata.json").read_text("utf-8")
    )
    numbers = {name: number for number, (name, _) in table.items()}
    return {name: numbers[name] for name in LabelSchema.general().names if name in numbers}


def describe(edges: Iterable[Edge], vocabulary: Vocabulary, *, merged: bool) -> Iterator[Description]:
    """What is said of each subject; a subject may come several times, with the same or with more."""
    say = vocabulary.term
    known: set[str] = set()
    document = None
    models: set[str] = set()
    labels: set[str] = set()
    for edge in edges:
        if not merged and edge.sources[0].document != document:
            # Nothing of a document is said again once the next one has begun: this is all that is held.
            document = edge.sources[0].document
            known.clear()
        if merged:
            head, tail = vocabulary.entity(edge.head), vocabulary.entity(edge.tail)
        else:
            (source,) = edge.sources
            head, tail = (_mention(source, side, vocabulary) for side in (source.head, source.tail))
        relation = vocabulary.property(edge.label)
        if edge.label not in labels:
            labels.add(edge.label)
            yield relation, [(TYPE, f"{RDF}Property"), (LABEL, Value(edge.label))]
        for node, iri in ((edge.head, head), (edge.tail, tail)):
            if iri not in known:
                known.add(iri)
                yield iri, _entity(node, vocabulary, merged=merged)
        yield head, [(relation, tail)]
        statement = f"{vocabulary.base}statement/{_quoted(edge.key)}"
        facts: list[tuple[str, str | Value]] = [
            (TYPE, f"{RDF}Statement"),
            (LABEL, Value(edge.label)),
            (f"{RDF}subject", head),
            (f"{RDF}predicate", relation),
            (f"{RDF}object", tail),
            (say("score"), _double(edge.score)),
        ]
        if merged:
            notes = [f"{statement}/{number}" for number in range(1, edge.count + 1)]
            facts.append((say("count"), Value(str(edge.count), f"{XSD}integer")))
            facts += [(say("source"), note) for note in notes]
            yield statement, facts
            for note, source in zip(notes, edge.sources, strict=True):
                yield note, [(say("score"), _double(source.score)), *_origin(source, vocabulary)]
        else:
            yield statement, [*facts, *_origin(edge.sources[0], vocabulary)]
        for source in edge.sources:
            yield from _parts(source, vocabulary, known)
            if source.model and source.model not in models:
                models.add(source.model)
                agent = _agent(source.model, vocabulary)
                yield agent, [(TYPE, f"{PROV}SoftwareAgent"), (LABEL, Value(source.model))]


def _entity(node: Node, vocabulary: Vocabulary, *, merged: bool) -> list[tuple[str, str | Value]]:
    facts: list[tuple[str, str | Value]] = [(LABEL, Value(node.text))]
    facts.append((vocabulary.term("key"), Value(node.key)))
    if node.type:
        facts.append((TYPE, vocabulary.type(node.type)))
        facts.append((vocabulary.term("type"), Value(node.type)))
    if node.kb_id:
        facts.append((vocabulary.term("id"), Value(node.kb_id)))
        if not merged:
            facts.append((f"{OWL}sameAs", vocabulary.identified(node.kb_id)))
    return facts


def _origin(source: Source, vocabulary: Vocabulary) -> list[tuple[str, str | Value]]:
    facts: list[tuple[str, str | Value]] = [
        (f"{PROV}wasDerivedFrom", vocabulary.part(source.document, source.start, source.end)),
        (vocabulary.term("headMention"), _mention(source, source.head, vocabulary)),
        (vocabulary.term("tailMention"), _mention(source, source.tail, vocabulary)),
    ]
    if source.model:
        facts.append((f"{PROV}wasAttributedTo", _agent(source.model, vocabulary)))
    return facts


def _parts(source: Source, vocabulary: Vocabulary, known: set[str]) -> Iterator[Description]:
    """Sentence and mentions as strings of their document, each once."""
    text = vocabulary.document(source.document)
    if text not in known:
        known.add(text)
        yield text, [(TYPE, f"{NIF}Context"), (vocabulary.term("name"), Value(source.document))]
    sentence = vocabulary.part(source.document, source.start, source.end)
    strings: list[tuple[str, str, int, int, str, list[tuple[str, str | Value]]]] = []
    strings.append((sentence, f"{NIF}Sentence", source.start, source.end, source.sentence, []))
    for argument in (source.head, source.tail):
        facts: list[tuple[str, str | Value]] = []
        if argument.type:
            facts.append((vocabulary.term("type"), Value(argument.type)))
        if argument.kb_id:
            facts.append((f"{ITSRDF}taIdentRef", vocabulary.identified(argument.kb_id)))
            facts.append((vocabulary.term("id"), Value(argument.kb_id)))
        mention = _mention(source, argument, vocabulary)
        strings.append((mention, f"{NIF}Phrase", argument.start, argument.end, argument.text, facts))
    for iri, kind, start, end, words, facts in strings:
        # The same characters can be a sentence and a mention.
        if f"{kind} {iri}" in known:
            continue
        known.add(f"{kind} {iri}")
        yield (
            iri,
            [
                (TYPE, kind),
                (f"{NIF}referenceContext", text),
                (f"{NIF}beginIndex", _index(start)),
                (f"{NIF}endIndex", _index(end)),
                (f"{NIF}anchorOf", Value(words)),
                *facts,
            ],
        )


def _mention(source: Source, argument: EntityMention, vocabulary: Vocabulary) -> str:
    return vocabulary.part(source.document, argument.start, argument.end, argument.type)


def _agent(model: str, vocabulary: Vocabulary) -> str:
    return f"{vocabulary.base}model/{_quoted(model)}"


def _double(value: float) -> Value:
    return Value(repr(float(value)), f"{XSD}double")


def _index(value: int) -> Value:
    return Value(str(value), f"{XSD}nonNegativeInteger")


# -- writing ---------------------------------------------------------------------------------------------


def write_ntriples(path: Path, descriptions: Iterable[Description], vocabulary: Vocabulary) -> None:
    """One triple a line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for subject, facts in descriptions:
            stream.write("".join([f"<{subject}> <{fact}> {_term(value)} .\n" for fact, value in facts]))


def write_turtle(path: Path, descriptions: Iterable[Description], vocabulary: Vocabulary) -> None:
    """Prefixes, then a paragraph a subject."""
    prefixes = vocabulary.prefixes

    # The terms of vocabularies come again and again; other IRIs would only push them out.
    @lru_cache(maxsize=512)
    def name(iri: str) -> str:
        for prefix, space in prefixes.items():
            local = iri.removeprefix(space)
            if local != iri and re.fullmatch(r"[A-Za-z]\w*", local, re.ASCII):
                return f"{prefix}:{local}"
        return f"<{iri}>"

    def short(fact: str, value: str | Value) -> str:
        return name(value) if fact == TYPE and isinstance(value, str) else _term(value, name)

    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for prefix, iri in prefixes.items():
            stream.write(f"@prefix {prefix}: <{iri}> .\n")
        for subject, facts in descriptions:
            lines = " ;\n    ".join([f"{name(fact)} {short(fact, value)}" for fact, value in facts])
            stream.write(f"\n<{subject}>\n    {lines} .\n")


def write_jsonld(path: Path, descriptions: Iterable[Description], vocabulary: Vocabulary) -> None:
    """One document with a context, and in its `@graph` an object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f'{{"@context": {json.dumps(vocabulary.prefixes)},\n"@graph": [')
        separator = "\n"
        for subject, facts in descriptions:
            entry: dict[str, Any] = {"@id": subject}
            for fact, value in facts:
                entry.setdefault(fact, []).append(_object(value))
            stream.write(separator + json.dumps(entry, ensure_ascii=False))
            separator = ",\n"
        stream.write("\n]}\n")


def _term(value: str | Value, name: Callable[[str], str] = "<{}>".format) -> str:
    """An object in the syntax that N-Triples and Turtle share."""
    if isinstance(value, str):
        return f"<{value}>"
    # The escapes of JSON strings are escapes of RDF strings too.
    text = _escape(value.text)
    return f"{text}^^{name(value.datatype)}" if value.datatype else text


_escape = json.JSONEncoder(ensure_ascii=False).encode


def _object(value: str | Value) -> dict[str, str]:
    if isinstance(value, str):
        return {"@id": value}
    return {"@value": value.text, "@type": value.datatype} if value.datatype else {"@value": value.text}


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")


# -- reading ---------------------------------------------------------------------------------------------


def read_rdf(path: str | Path, base: str = DEFAULT_BASE) -> Iterator[Edge]:
    """The edges of an RDF file that was exported; it is held in memory as a graph.

    Args:
        path: A `.nt`, `.ttl` or `.jsonld` file.
        base: The base IRI that it was exported with.

    Raises:
        ExportError: The file is absent, or has another ending or form.
    """
    path = Path(path)
    formats = {".nt": "nt", ".ttl": "turtle", ".jsonld": "json-ld"}
    if path.suffix not in formats:
        raise ExportError(f"{path}: RDF is read from {', '.join(formats)} files.")
    if not path.is_file():
        raise ExportError(f"The file {path} does not exist.")
    import rdflib

    graph = rdflib.Graph()
    try:
        with path.open("rb") as stream:
            graph.parse(stream, format=formats[path.suffix])
    except Exception as error:  # each parser has its own
        raise ExportError(f"{path} is no readable RDF ({type(error).__name__}: {error}).") from error
    yield from from_rdf(graph, base)


def from_rdf(graph: rdflib.Graph, base: str = DEFAULT_BASE) -> Iterator[Edge]:
    """The edges of a graph that holds an export.

    Args:
        graph: The graph; what else it holds is passed over.
        base: The base IRI of the export.
    """
    from rdflib import URIRef

    say = Vocabulary(base).term

    def one(subject: Any, predicate: str) -> Any:
        return graph.value(subject, URIRef(predicate))

    def text(subject: Any, predicate: str) -> str:
        return str(one(subject, predicate) or "")

    def argument(iri: Any) -> EntityMention:
        # A sentence of nothing but the mention can have the same IRI, and then the same values.
        return EntityMention(
            int(one(iri, f"{NIF}beginIndex")),
            int(one(iri, f"{NIF}endIndex")),
            text(iri, f"{NIF}anchorOf"),
            text(iri, say("type")),
            text(iri, say("id")),
        )

    def source(note: Any) -> Source:
        sentence = one(note, f"{PROV}wasDerivedFrom")
        agent = one(note, f"{PROV}wasAttributedTo")
        return Source(
            text(one(sentence, f"{NIF}referenceContext"), say("name")),
            int(one(sentence, f"{NIF}beginIndex")),
            int(one(sentence, f"{NIF}endIndex")),
            text(sentence, f"{NIF}anchorOf"),
            argument(one(note, say("headMention"))),
            argument(one(note, say("tailMention"))),
            float(one(note, say("score"))),
            text(agent, LABEL) if agent is not None else "",
        )

    def node(iri: Any) -> Node:
        return Node(text(iri, say("key")), text(iri, LABEL), text(iri, say("type")), text(iri, say("id")))

    start = f"{base}statement/"
    for statement in graph.subjects(URIRef(TYPE), URIRef(f"{RDF}Statement")):
        if not str(statement).startswith(start):
            continue
        notes = list(graph.objects(statement, URIRef(say("source")))) or [statement]
        yield Edge(
            unquote(str(statement).removeprefix(start)),
            node(one(statement, f"{RDF}subject")),
            node(one(statement, f"{RDF}object")),
            text(statement, LABEL),
            float(one(statement, say("score"))),
            tuple(sorted(map(source, notes), key=lambda found: -found.score)),
        )

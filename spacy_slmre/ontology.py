"""Relation labels from ontologies: OWL, RDFS and schema.org vocabularies in Turtle, RDF/XML, JSON-LD or N-Triples.

For example, from the Relationship vocabulary,

    rel:spouseOf a owl:ObjectProperty, owl:SymmetricProperty ;
        rdfs:label "Spouse Of"@en ; rdfs:domain foaf:Person ; rdfs:range foaf:Person .

becomes {"name": "spouseOf", "wording": "spouse of", "types": [["PER", "PER"]], "symmetric": true, "iri": "http://…"}.
"""

from __future__ import annotations

import difflib
import html
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_slmre.util.extras import require_extra

if TYPE_CHECKING:
    from rdflib import Graph

SUFFIXES = {".ttl": "turtle", ".owl": "xml", ".rdf": "xml", ".jsonld": "json-ld", ".nt": "nt", ".n3": "n3"}
"""Suffixes of ontology files, and rdflib's names of their formats."""
ABSOLUTE_IRI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`\x7f]+")
MAX_DEFINITION = 200
"""Longer definitions are cut at a word boundary; in characters."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDFS = "http://www.w3.org/2000/01/rdf-schema#"
_OWL = "http://www.w3.org/2002/07/owl#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_XSD = "http://www.w3.org/2001/XMLSchema#"
_DCTERMS = "http://purl.org/dc/terms/"
_DCAM = "http://purl.org/dc/dcam/"
_SCHEMA = "https://schema.org/"
_IS_A = f"{_RDF}type"
_SUBCLASS, _SUBPROPERTY = f"{_RDFS}subClassOf", f"{_RDFS}subPropertyOf"
_UNION, _EQUIVALENT = f"{_OWL}unionOf", f"{_OWL}equivalentClass"
_INVERSE = (f"{_OWL}inverseOf", f"{_SCHEMA}inverseOf")
_LABEL = (f"{_RDFS}label", f"{_SKOS}prefLabel")
# The third one is the definition in OBO ontologies.
_DEFINITION = (
    f"{_SKOS}definition", f"{_RDFS}comment", "http://purl.obolibrary.org/obo/IAO_0000115", f"{_DCTERMS}description"
)  # fmt: skip
_DOMAIN = (f"{_RDFS}domain", f"{_SCHEMA}domainIncludes", f"{_DCAM}domainIncludes")
_RANGE = (f"{_RDFS}range", f"{_SCHEMA}rangeIncludes", f"{_DCAM}rangeIncludes")
_REPLACED = (f"{_SCHEMA}supersededBy", f"{_DCTERMS}isReplacedBy")
_STATUS = "http://www.w3.org/2003/06/sw-vocab-status/ns#term_status"
_OBJECT_PROPERTIES = {
    f"{_OWL}{name}"
    for name in (
        "ObjectProperty", "SymmetricProperty", "AsymmetricProperty", "TransitiveProperty", "InverseFunctionalProperty"
    )
}  # fmt: skip

# Classes of widely used vocabularies that are not named like an entity type.
_CLASS_TYPES = {
    "AGENT": ("ORG", "PER"),  # FOAF, PROV-O, Dublin Core
    "ACTOR": ("ORG", "PER"),  # CIDOC CRM
    "GROUP": ("ORG",),  # FOAF, CIDOC CRM
    "CREATIVEWORK": ("WORK",),  # schema.org
    "TIME-SPAN": ("DATE",),  # CIDOC CRM
    "PERIODOFTIME": ("DATE",),  # Dublin Core
    "GYEAR": ("DATE",),  # XML Schema
    "GYEARMONTH": ("DATE",),
}
# The code in names such as "P98_brought_into_life" and "E21 Person" of CIDOC CRM.
_CODE = re.compile(r"[A-Z]{1,2}\d+[a-z]?[ _](?=\S)")
_SENTENCE = re.compile(r"(.+?)(?<!\be\.g)(?<!\bi\.e)[.!?](?=\s|$)")


def read_labels(path: Path, include: Sequence[str] | None, types: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the relation labels of an ontology, in the form that `LabelSchema.from_dict` reads.

    Args:
        path: The file; its suffix is one of `SUFFIXES`.
        include: Local names or IRIs of the properties to read, which is the order of the labels. By default, all that
            relate entities and are not deprecated, by IRI.
        types: Entity types by the names of classes, in upper case.

    Raises:
        ValueError: The file is not RDF, or has no relations or not those in `include`; or rdflib is missing.
        OSError: The file cannot be read.
    """
    return _Ontology(_parse(path), types).labels(include)


def _parse(path: Path) -> Graph:
    with require_extra("ontology", "reading an ontology"):
        import rdflib
    data = path.read_bytes()
    format = SUFFIXES[path.suffix.lower()]
    if format == "xml" and not re.match(rb"(\xef\xbb\xbf)?\s*<(\?xml|!|rdf:RDF)", data):
        format = "turtle"  # of some .owl files
    try:
        if format == "json-ld":
            _check_contexts(json.loads(data))
        return rdflib.Graph().parse(data=data, format=format)
    except Exception as error:  # each parser has its own exceptions
        reason = textwrap.shorten(str(error), 300, placeholder=" …")
        name = {"xml": "RDF/XML", "json-ld": "JSON-LD", "nt": "N-Triples"}.get(format, format.title())
        raise ValueError(f"the file is not an ontology in {name} ({reason}).") from error


def _check_contexts(data: Any) -> None:
    """Raise ValueError if JSON-LD has a remote context, which rdflib would fetch from the network."""
    if isinstance(data, dict):
        for key in ("@context", "@import"):
            value = data.get(key)
            if remote := [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]:
                raise ValueError(f"its context is not in the file, but at {remote[0]}; convert it to Turtle")
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            _check_contexts(value)


class _Ontology:
    """The statements of an ontology, with IRIs as plain strings."""

    def __init__(self, graph: Graph, types: Mapping[str, str]) -> None:
        from rdflib import Literal, URIRef

        self.types = types
        self.nodes: dict[str, dict[str, list[str]]] = {}
        self.literals: dict[str, dict[str, list[Literal]]] = {}
        for subject, predicate, value in graph:
            name = _normalize(predicate)
            if isinstance(value, Literal):
                self.literals.setdefault(_normalize(subject), {}).setdefault(name, []).append(value)
            else:
                self.nodes.setdefault(_normalize(subject), {}).setdefault(name, []).append(_normalize(value))
        self.iris = {_normalize(subject): str(subject) for subject in graph.subjects() if isinstance(subject, URIRef)}
        self.inverses: dict[str, set[str]] = {}
        for node in self.iris:
            for inverse in self.related(node, *_INVERSE):
                self.inverses.setdefault(node, set()).add(inverse)
                self.inverses.setdefault(inverse, set()).add(node)

    def related(self, node: str, *predicates: str) -> list[str]:
        """Return the resources that a node has these predicates with, in a fixed order."""
        statements = self.nodes.get(node, {})
        return sorted(value for predicate in predicates for value in statements.get(predicate, ()))

    def text(self, node: str, predicates: Iterable[str]) -> tuple[str, str]:
        """Return the text of the first predicate that has one, preferably in English, and its language."""
        statements = self.literals.get(node, {})
        for predicate in predicates:
            if found := [(value.language or "", str(value)) for value in statements.get(predicate, ())]:
                ranks = {"en": 0, "": 1}
                language, text = min(found, key=lambda one: (ranks.get(one[0].split("-")[0].lower(), 2), one))
                return " ".join(text.split()), language
        return "", ""

    # -- labels ------------------------------------------------------------------------------------------

    def labels(self, include: Sequence[str] | None) -> list[dict[str, Any]]:
        """See `read_labels`."""
        relations = sorted(node for node in self.iris if self.is_relation(node))
        if not relations:
            raise ValueError("the ontology has no object properties, or properties whose range is a class.")
        if include is None:
            chosen = [node for node in relations if not self.is_deprecated(node)]
        else:
            chosen = [self.find(name, relations) for name in include]
        names: dict[str, str] = {}
        for node in chosen:
            if other := names.get(name := _local_name(node)):
                both = f"{self.iris[other]} and {self.iris[node]}"
                raise ValueError(f'two properties have the name "{name}": {both}. Use `include` with only one of them.')
            names[name] = node
        wordings = {name: self.wording(node, name) for name, node in names.items()}
        counts = Counter(wordings.values())
        return [
            {
                "name": name,
                "wording": wordings[name] if counts[wordings[name]] == 1 else "",
                "definition": self.definition(node),
                "types": self.type_pairs(node),
                "iri": self.absolute_iri(node),
                **self.rules(node, names),
            }
            for name, node in names.items()
        ]

    def find(self, name: str, relations: Sequence[str]) -> str:
        """Return the only one of the relations that has this local name or IRI."""
        found = [node for node in relations if name in (_local_name(node), self.iris[node])]
        if len(found) > 1:
            raise ValueError(f'"{name}" in `include` has several meanings; use one of {", ".join(found)}.')
        if not found:
            similar = difflib.get_close_matches(name, map(_local_name, relations)) or relations[:3]
            raise ValueError(
                f'"{name}" in `include` is not a relation between entities in this ontology. Use names or IRIs of '
                f"object properties, such as {', '.join(similar)}."
            )
        return found[0]

    def absolute_iri(self, node: str) -> str | None:
        """Return the IRI of a node, or None if it is relative, which parsers complete with the path of the file."""
        iri = self.iris[node]
        return iri if ABSOLUTE_IRI.fullmatch(iri) and not iri.startswith("file:") else None

    def is_relation(self, node: str) -> bool:
        """Return whether a property relates entities: its range is a class, or a date, which is an entity in texts."""
        kinds = set(self.related(node, _IS_A))
        if node.startswith((_OWL, _RDF, _RDFS)):
            return False
        is_object = bool(kinds & _OBJECT_PROPERTIES or self.related(node, *_INVERSE))
        if self.classes(node, _RANGE):
            return is_object or bool(kinds & {f"{_OWL}DatatypeProperty", f"{_RDF}Property"})
        # An object property without a range can relate anything.
        return is_object and not self.related(node, *_RANGE)

    def is_deprecated(self, node: str) -> bool:
        """Return whether a property is deprecated, archaic, or superseded by another one."""
        if self.related(node, *_REPLACED) or f"{_OWL}DeprecatedProperty" in self.related(node, _IS_A):
            return True
        texts = {self.text(node, [name])[0].lower() for name in (f"{_OWL}deprecated", _STATUS)}
        return bool(texts & {"true", "1", "archaic", "deprecated"})

    def wording(self, node: str, name: str) -> str:
        """Return the label of a property in lower case as far as it is in title case, or "" if it is the name."""
        text, language = self.text(node, _LABEL)
        if text == name:
            return ""
        text = _CODE.sub("", text, count=1) if _CODE.match(text) else text
        if language.split("-")[0].lower() not in ("", "en"):
            return text
        return " ".join(word.lower() if word.istitle() else word for word in text.split())

    def definition(self, node: str) -> str:
        """Return the first sentence of the definition, without markup."""
        text = html.unescape(re.sub(r"<[^>]+>|\\n", " ", self.text(node, _DEFINITION)[0]))
        text = re.sub(r"\[\[(.+?)\]\]|\[([^\]]+)\]\([^)]*\)", r"\1\2", text)  # links in the Markdown of schema.org
        text = " ".join(text.split())
        sentence = _SENTENCE.match(text)
        return textwrap.shorten(sentence[1] if sentence else text, MAX_DEFINITION, placeholder=" …")

    def rules(self, node: str, names: Mapping[str, str]) -> dict[str, Any]:
        """Return what the ontology says about how relations with this label depend on each other."""
        kinds = {kind.removeprefix(_OWL) for kind in self.related(node, _IS_A)}
        inverses = self.inverses.get(node, set())
        symmetric = "SymmetricProperty" in kinds or node in inverses
        rules: dict[str, Any] = {}
        if symmetric or "AsymmetricProperty" in kinds:
            rules["symmetric"] = symmetric
        if not symmetric and (known := sorted(inverses & set(names.values()))):
            rules["inverse"] = _local_name(known[0])
        if "FunctionalProperty" in kinds:
            rules["max_per_head"] = 1
        if "InverseFunctionalProperty" in kinds:
            rules["max_per_tail"] = 1
        return rules

    # -- entity types ------------------------------------------------------------------------------------

    def type_pairs(self, node: str) -> list[list[str]]:
        """Return the entity types of domain and range; none if both can be any."""
        heads, tails = (self.types_of(self.classes(node, side)) or {"*"} for side in (_DOMAIN, _RANGE))
        pairs = [[head, tail] for head in sorted(heads) for tail in sorted(tails)]
        return [] if pairs == [["*", "*"]] else pairs

    def classes(self, node: str, side: tuple[str, ...]) -> list[str]:
        """Return the domain or range of a property, without literals, or that of an inverse or a superproperty."""
        other = _DOMAIN if side == _RANGE else _RANGE
        queue = [(node, side)]
        for property, predicates in queue:  # breadth first; the loop extends the queue
            if stated := self.related(property, *predicates):
                parts = [part for one in stated for part in self.members(one)]
                return [part for part in parts if not self.is_literal(part)]
            more = [
                (inverse, other if predicates == side else side) for inverse in sorted(self.inverses.get(property, ()))
            ]
            more += [(parent, predicates) for parent in self.related(property, _SUBPROPERTY)]
            queue += [one for one in more if one not in queue]
        return []

    def members(self, node: str) -> list[str]:
        """Return the classes of a union, or the node itself."""
        members = [member for first in self.related(node, _UNION) for member in self.items(first)]
        return [part for member in members for part in self.members(member)] or [node]

    def items(self, node: str) -> list[str]:
        """Return the items of an RDF list."""
        items: list[str] = []
        seen: set[str] = set()
        while node not in seen and (first := self.related(node, f"{_RDF}first")):
            seen.add(node)
            items += first
            node = (self.related(node, f"{_RDF}rest") or [""])[0]
        return items

    def is_literal(self, node: str) -> bool:
        """Return whether a range has values that are no entities; dates are entities in a text."""
        is_data = False
        for one in (ancestor for level in self.ancestors(node) for ancestor in level):
            if self.own_types(one):
                return False
            kinds = self.related(one, _IS_A)
            is_data |= one.startswith(_XSD) or one in (f"{_RDFS}Literal", f"{_RDF}langString", f"{_SCHEMA}DataType")
            is_data |= f"{_RDFS}Datatype" in kinds or f"{_SCHEMA}DataType" in kinds
        return is_data

    def types_of(self, classes: Iterable[str]) -> set[str]:
        """Return the entity types of some classes; none if one of them can be any."""
        types: set[str] = set()
        for node in classes:
            levels = ({type for one in level for type in self.own_types(one)} for level in self.ancestors(node))
            found = next(filter(None, levels), None)
            if found is None:
                return set()
            types |= found
        return types

    def ancestors(self, node: str) -> Iterator[list[str]]:
        """Yield a class, then its superclasses and equivalents, then theirs."""
        level, seen = [node], {node}
        while level:
            yield level
            more = {parent for one in level for parent in self.related(one, _EQUIVALENT, _SUBCLASS)}
            level = sorted(more - seen)
            seen |= more

    def own_types(self, node: str) -> tuple[str, ...]:
        """Return the entity types that a class has by its name."""
        name = _CODE.sub("", _local_name(node), count=1).upper()
        return (self.types[name],) if name in self.types else _CLASS_TYPES.get(name, ())


def _normalize(node: Any) -> str:
    """Return an IRI as text; schema.org has two forms of each."""
    return re.sub("^http://schema.org/", _SCHEMA, str(node))


def _local_name(iri: str) -> str:
    return re.split(r"[#/:]", iri.rstrip("#/:"))[-1]

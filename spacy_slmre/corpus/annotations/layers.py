"""How INCEpTION's layers become entities and relations, in both of its formats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from spacy_slmre.corpus.annotations.builder import RecordBuilder
from spacy_slmre.corpus.sources import CorpusError

TOKEN = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Token"
SENTENCE = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Sentence"
NAMED_ENTITY = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity"
ANY = "uima.tcas.Annotation"
"""The layer that relations connect if they may connect annotations of any layer."""
_DEPENDENCY = "de.tudarmstadt.ukp.dkpro.core.api.syntax.type.dependency.Dependency"
# Features that contain the label of an annotation, if a layer has several; otherwise, it is the first one.
_LABEL_FEATURES = ("value", "label")
_NOT_LABELS = ("identifier", "uiOrder")
# Layers whose name says nothing about their annotations.
_GENERIC = ("NamedEntity", "Span", "Relation")


def relation_layers(bases: Mapping[str, str], chosen: str, where: str) -> dict[str, str]:
    """Return the layers to read relations from, with the layer that each connects.

    Args:
        bases: All relation layers, with the layer that each connects.
        chosen: Names of layers or their last parts, separated by commas; by default, all except syntax.
        where: The file, for error messages.

    Raises:
        CorpusError: A chosen layer does not exist.
    """
    if not chosen:
        return {layer: base for layer, base in bases.items() if layer != _DEPENDENCY}
    names = [name.strip() for name in chosen.split(",")]
    found = {name: [layer for layer in bases if name in (layer, short_name(layer))] for name in names}
    if missing := [name for name, layers in found.items() if not layers]:
        known = ", ".join(bases) or "none"
        raise CorpusError(f"{where}: there is no relation layer {', '.join(missing)}. Relation layers: {known}.")
    return {layer: bases[layer] for layers in found.values() for layer in layers}


def entity_layers(connected: Collection[str], layers: Collection[str]) -> set[str]:
    """Return the layers whose annotations are entities: those that relations connect, and named entities.

    If relations may connect annotations of any layer, custom layers are entities. Tokens are only entities where a
    relation connects them.
    """
    custom = {layer for layer in layers if "custom." in layer} if ANY in connected else set()
    return ({*connected, NAMED_ENTITY, *custom} & set(layers)) - {TOKEN, SENTENCE, ANY}


def label_feature(features: Sequence[str]) -> str | None:
    """Return the feature with the label of an annotation."""
    possible = [name for name in features if name not in _NOT_LABELS]
    return next((name for name in _LABEL_FEATURES if name in possible), possible[0] if possible else None)


def label_of(layer: str, value: str | None) -> str | None:
    """Return the label of an annotation: its value, otherwise the name of its layer unless that is a generic one."""
    name = short_name(layer)
    return value or (name if name not in _GENERIC else None)


def reject_slots(builder: RecordBuilder, layer: str, span: tuple[int, int], number: int) -> None:
    """Count the filled slots of an annotation, which is at these offsets: they are not read as relations."""
    for _ in range(number):
        shown = f"{short_name(layer)} {builder.text[slice(*span)]!r}"
        builder.reject("slot of an annotation", f"{shown}: only relation layers are read")


def short_name(layer: str) -> str:
    """Return the last part of a layer's name."""
    return layer.rpartition(".")[2]

"""The component `slm_entities`: corrects the types of entities, and adds names that the entity recognizer missed.

The type of a span is predicted like a relation of the span with itself, by the same kind of model as in
`slm_relations`. The shipped adapter was tuned on this task, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import srsly
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.entity_decisions import EntityDecision, install_decisions, write_decisions
from spacy_slmre.entity_types import EntityTypes
from spacy_slmre.instances import RelationInstance, make_instances
from spacy_slmre.models.base import RelationModel
from spacy_slmre.names import find_names, find_noun_phrases
from spacy_slmre.pipeline.question_pipe import QuestionPipe
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.json_files import check_fields, read_record
from spacy_slmre.util.settings import (
    check_choice,
    check_minimum,
    check_probability,
    check_types,
    defaults_of,
    takes_settings,
)

_PROBABILITIES = ("retype_threshold", "drop_threshold", "add_threshold")


@dataclass(frozen=True, kw_only=True)
class EntitySettings:
    """Settings of `slm_entities`.

    Attributes:
        types: The types to choose from: names, definitions by name ({"PERSON": "a human being", …}), or a schema as for
            `slm_relations` (a dict with "labels", or a JSON or YAML file). By default, PERSON, NORP, ORG, GPE (for all
            places), PRODUCT, EVENT and WORK_OF_ART.
        mode: "retype" changes or removes entities of the document; "complete" adds entities, and keeps those of the
            document as they are; "all" does both.
        retype_threshold: Minimum probability (0 to 1) of another type, given that the span is an entity.
        drop_threshold: Minimum probability that the span is no entity, for removing it.
        add_threshold: Minimum probability of the type of an added entity.
        noun_phrases: Also ask about noun phrases without a name, such as "the surgeon".
        batch_size: Number of spans that are scored together, across documents.
        max_context_tokens: Longer sentences are truncated around their span; counted in the model's tokens.

    Raises:
        ValueError: A value is out of range, or `types` is not a valid set of types.
    """

    types: Any = None
    mode: Literal["retype", "complete", "all"] = "all"
    retype_threshold: float = 0.5
    drop_threshold: float = 0.9
    add_threshold: float = 0.9
    noun_phrases: bool = False
    batch_size: int = 128
    max_context_tokens: int = 512

    def __post_init__(self) -> None:
        check_types(self, "slm_entities")
        check_choice(self, "slm_entities", mode=("retype", "complete", "all"))
        check_minimum(self, "slm_entities", batch_size=1, max_context_tokens=1)
        check_probability(self, "slm_entities", names=_PROBABILITIES)
        if not isinstance(self.types, str | Path):  # a file is read at first use
            EntityTypes.from_any(self.types)


@dataclass(frozen=True)
class Questions:
    """The spans of a document that the model is asked about.

    Attributes:
        entities: Entities of the document whose type may change.
        missed: Spans that may be entities, too.
        instances: An instance for each of the entities, then for each of the others.
    """

    doc: Doc
    entities: list[Span]
    missed: list[Span]
    instances: list[RelationInstance]


@dataclass(frozen=True)
class EntityPrediction:
    """The entities of a document, and the decisions that changed or confirmed them."""

    entities: list[Span]
    decisions: list[EntityDecision]


class EntityCorrector(QuestionPipe[EntityPrediction]):
    """Changes `doc.ents`, and writes to `doc._.entity_decisions` what it decided; see `EntitySettings`."""

    def __init__(self, model: RelationModel, name: str, settings: EntitySettings) -> None:
        super().__init__(model, name, settings.batch_size, settings.max_context_tokens)
        install_decisions(strict=True)
        self.settings = settings
        self._types: EntityTypes | None = None

    @property
    def types(self) -> EntityTypes:
        """The types to choose from. Raises ValueError if they are configured as a file that cannot be read."""
        if self._types is None:
            self._types = EntityTypes.from_any(self.settings.types)
        return self._types

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the types; empty if their file is unreadable."""
        try:
            return self.types.schema.positive_names
        except ValueError:  # spaCy reads this before `from_disk`, when the configured file may be missing
            return ()

    def predict(self, docs: Iterable[Doc]) -> list[EntityPrediction]:
        """Return the entities of each document, without changing it."""
        return [decide(questions, probs, self.types, self.settings) for questions, probs in self.predict_proba(docs)]

    def predict_proba(self, docs: Iterable[Doc]) -> list[tuple[Questions, np.ndarray]]:
        """Return the spans that the model is asked about, and the probabilities of their types.

        These are (n_spans, n_types + 1), in the order of `types.schema.labels`; the last one means "no entity". Rows of
        spans that are too long for the model are 0.
        """
        asked = [self._make_questions(doc) for doc in docs]
        probs = self._score([instance for one in asked for instance in one.instances], self.types.schema)
        ends = np.cumsum([len(one.instances) for one in asked])
        return list(zip(asked, np.split(probs, ends[:-1]), strict=True)) if asked else []

    def set_annotations(self, docs: Sequence[Doc], predictions: Sequence[EntityPrediction]) -> None:
        """Replace the entities of the documents, and write the decisions."""
        for doc, prediction in zip(docs, predictions, strict=True):
            if MENTIONS in doc.spans:  # overlapping mentions, entities among them
                others = set(map(_bounds, doc.spans[MENTIONS])) - set(map(_bounds, doc.ents))
                mentions = [span for span in doc.spans[MENTIONS] if _bounds(span) in others]
                doc.spans[MENTIONS] = sorted([*mentions, *prediction.entities])
            if prediction.entities != list(doc.ents):  # a document without entities remains one that was never asked
                doc.set_ents(prediction.entities)
            write_decisions(doc, prediction.decisions)

    def _make_questions(self, doc: Doc) -> Questions:
        mode = self.settings.mode
        self._warn_about(doc)
        entities = [] if mode == "complete" else [span for span in doc.ents if self.types.may_change(span.label_)]
        missed = [] if mode == "retype" else self._find_missed(doc, set(map(_bounds, entities)))
        # Types are the answer, so mentions must not have them.
        plain = [Span(doc, *_bounds(span)) for span in (*entities, *missed)]
        return Questions(
            doc, entities, missed, make_instances(doc, [(span, span) for span in plain], self.types.schema)
        )

    def _find_missed(self, doc: Doc, asked: set[tuple[int, int]]) -> list[Span]:
        """Return names and noun phrases that are not entities, and do not overlap any that stay."""
        taken = {token.i for span in doc.ents if _bounds(span) not in asked for token in span}
        spans = [*find_names(doc), *(find_noun_phrases(doc) if self.settings.noun_phrases else ())]
        free = {_bounds(span): span for span in spans if taken.isdisjoint(range(span.start, span.end))}
        return [free[bounds] for bounds in sorted(free) if bounds not in asked]

    def _warn_about(self, doc: Doc) -> None:
        if not len(doc):
            return
        if self.settings.mode == "retype" and not doc.has_annotation("ENT_IOB"):
            self._warn_once(
                "entities",
                "the documents have no entities to retype, because no component before this one finds entities. Add a "
                'trained "ner" or an "entity_ruler" before it, or set mode = "all".',
            )
        if self.settings.mode != "retype" and not doc.has_annotation("POS"):
            self._warn_once(
                "tags",
                "the documents have no part-of-speech tags, so missed names are found by their capital letters. Add a "
                "tagger before it (in spaCy's English pipelines: tagger, attribute_ruler and parser).",
            )

    def _writers(self) -> dict[str, Any]:
        saved = {"configured": _to_json(self.settings.types), "schema": self.types.schema.to_dict()}
        return {"types.json": lambda file: srsly.write_json(file, saved)}

    def _readers(self) -> dict[str, Any]:
        return {"types.json": lambda file: read_record(file, self._set_types)}

    def _set_types(self, saved: Mapping[str, Any]) -> None:
        check_fields(saved, schema=dict)
        # Types that were configured differently after saving take precedence.
        if saved["configured"] == _to_json(self.settings.types):
            self._types = EntityTypes(LabelSchema.from_dict(saved["schema"]), is_default=self.settings.types is None)


def decide(questions: Questions, probs: np.ndarray, types: EntityTypes, settings: EntitySettings) -> EntityPrediction:
    """Choose the entities of a document.

    Args:
        questions: The spans that the model was asked about.
        probs: The probabilities of their types; see `EntityCorrector.predict_proba`.
        types: The types.
        settings: The thresholds.
    """
    doc = questions.doc
    asked = {_bounds(span) for span in questions.entities}
    entities = [span for span in doc.ents if _bounds(span) not in asked]
    proposed: list[tuple[float, Span]] = []
    decisions: dict[tuple[int, int], EntityDecision] = {}
    for span, row in zip((*questions.entities, *questions.missed), probs, strict=True):
        label, score = _choose(span.label_, row, types, settings)
        if span.label_ or label:
            decisions[_bounds(span)] = EntityDecision(
                span.start_char, span.end_char, span.text, span.label_, label, score
            )
        if label:
            # The ids of a retyped entity stay: they say which one it is.
            typed = Span(doc, span.start, span.end, label, kb_id=span.kb_id, span_id=span.id)
            # Entities that the model was not asked about stay.
            proposed.append((1.0 if score is None else score, span if label == span.label_ else typed))
    taken = {token.i for span in entities for token in span}
    # Of overlapping spans, take the most probable one; of equally probable ones, the document's own or the longest.
    for _, span in sorted(proposed, key=lambda one: (-one[0], _bounds(one[1]) not in asked, -len(one[1]))):
        if taken.isdisjoint(range(span.start, span.end)):
            taken.update(range(span.start, span.end))
            entities.append(span)
        elif _bounds(span) in asked:
            decisions[_bounds(span)] = replace(decisions[_bounds(span)], after="", score=None)
        else:
            del decisions[_bounds(span)]
    return EntityPrediction(sorted(entities, key=_bounds), [decisions[bounds] for bounds in sorted(decisions)])


def _choose(before: str, probs: np.ndarray, types: EntityTypes, settings: EntitySettings) -> tuple[str, float | None]:
    """Return the type of a span after the decision, "" if it is no entity, and the probability of that.

    Args:
        before: Its type before, or "".
        probs: The probabilities of the types, then that of no entity; all 0 if the model was not asked.
        types: The types.
        settings: The thresholds.
    """
    names = types.schema.names
    own = types.find(before) if before else None
    *of_types, none = probs.tolist()
    column = int(np.argmax(of_types))
    name, best = names[column], of_types[column]
    if not any(probs):
        return before, None
    if not before:
        return (name, best) if best >= settings.add_threshold else ("", none)
    if none >= settings.drop_threshold:
        return "", none
    # A type that is not one of the types is always replaced.
    if name != own and (own is None or best >= settings.retype_threshold * (1 - none)):
        return name, best
    assert own is not None
    return before if types.is_default else own, of_types[names.index(own)]


def _bounds(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _to_json(types: Any) -> Any:
    """Return configured types as plain data that can be compared after saving."""
    if isinstance(types, LabelSchema):
        types = types.to_dict()
    return str(types) if isinstance(types, Path) else srsly.json_loads(srsly.json_dumps(types))


@Language.factory(
    "slm_entities",
    assigns=["doc.ents", "doc._.entity_decisions"],
    default_config={"model": {"@architectures": "spacy-slmre.SmallLM.v1"}, **defaults_of(EntitySettings)},
)
@takes_settings(EntitySettings)
def make_slm_entities(nlp: Language, name: str, model: RelationModel, settings: EntitySettings) -> EntityCorrector:
    """Make a component that types spans with a language model, `@architectures = "spacy-slmre.SmallLM.v1"`."""
    return EntityCorrector(model, name, settings)

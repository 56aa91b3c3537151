"""Labels of single documents, and the default threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import srsly
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_slmre.models.causal_lm import model
from spacy_slmre.models.causal_lm.scoring import PreparedLabels
from spacy_slmre.models.prompts import PromptBuilder
from spacy_slmre.schema import LabelSchema
from tests.conftest import TEXTS, threshold_between
from tests.pipeline.test_slm_relations import LABELS, found


@pytest.fixture
def nlp(blank: Callable[[], Language], tiny_model: dict) -> Language:
    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "labels": LABELS, "negative_label": None})
    return nlp


def test_labels_of_a_document_replace_those_of_the_component(nlp: Language) -> None:
    own = [["rival"], ["friend", "employer"], None]
    texts = [TEXTS[0], TEXTS[1], TEXTS[4]]
    stream = [(text, {"labels": one, "number": n}) for n, (text, one) in enumerate(zip(texts, own, strict=True))]
    seen = []
    for doc, context in nlp.pipe(stream, as_tuples=True):
        seen.append(context["number"])
        allowed = context["labels"] or LABELS
        assert doc._.relations and {relation.label for relation in doc._.relations} <= set(allowed)
    assert seen == [0, 1, 2]
    # The attribute has the same effect, and precedence.
    doc = nlp.make_doc(TEXTS[1])
    doc._.relation_labels = {"labels": [{"name": "friend"}, {"name": "employer"}], "negative_label": None}
    (other, _), *_ = nlp.pipe([(TEXTS[1], {"labels": own[1]})], as_tuples=True)
    assert found(nlp(doc)) == found(other)
    assert nlp.get_pipe("slm_relations").labels == tuple(LABELS)


def test_labels_of_a_document_are_stored_as_plain_data(nlp: Language, tmp_path: Path) -> None:
    schema = LabelSchema.from_labels(["friend", "employer"], None)
    path = tmp_path / "schema.json"
    srsly.write_json(path, schema.to_dict())
    results = []
    for labels in (schema, schema.to_dict(), path):
        doc = nlp.make_doc(TEXTS[1])
        doc._.relation_labels = labels
        (copy,) = DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab)
        results.append(found(nlp(copy)))
        assert results[-1] == found(nlp(doc))
    assert results[0] and results == [results[0]] * 3


def test_labels_are_prepared_once(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []

    class Counted(PreparedLabels):
        def __init__(self, prompts: PromptBuilder, schema: LabelSchema) -> None:
            prepared.append(schema.names)
            super().__init__(prompts, schema)

    nlp(TEXTS[0])
    monkeypatch.setattr(model, "PreparedLabels", Counted)
    for labels in (["rival"], ["friend"], ["rival"], ["friend"]):
        list(nlp.pipe([(TEXTS[1], {"labels": labels})], as_tuples=True))
    nlp(TEXTS[1])
    assert len(prepared) == 2
    assert len(nlp.get_pipe("slm_relations")._doc_schemas) == 2


def test_types_exclude_labels_before_probabilities_are_normalized(
    blank: Callable[[], Language], tiny_model: dict
) -> None:
    types = [["PER", "LOC"], ["PERSON", "GPE"]]
    labels = [{"name": "born in", "types": types}, {"name": "works for", "types": [["PER", "ORG"]]}, "no_relation"]
    nlp = blank()
    component = nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": {"labels": labels}})
    pairs = component.predict_proba([nlp(TEXTS[0])], k=3)[0]
    assert pairs
    for pair in pairs:
        probs = dict(pair.labels)
        assert len(probs) < 3 and sum(probs.values()) == pytest.approx(1.0, abs=1e-4)


def test_a_document_with_wrong_labels_fails_alone(nlp: Language) -> None:
    failed = []
    nlp.set_error_handler(lambda name, pipe, docs, error: failed.extend((doc.text, str(error)) for doc in docs))
    stream = [(TEXTS[0], {"labels": "rival"}), (TEXTS[1], {"labels": ["rival"]})]
    docs = [doc for doc, _ in nlp.pipe(stream, as_tuples=True)]
    assert [doc.text for doc in docs] == [TEXTS[1]]
    assert failed == [(TEXTS[0], failed[0][1])] and "rival" in failed[0][1]


def test_the_threshold_of_the_model_is_the_default(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    component = nlp.get_pipe("slm_relations")
    assert component.threshold == "auto" and component.model.default_threshold is None
    everything = nlp(TEXTS[4])._.relations
    high = threshold_between([relation.score for relation in everything])
    monkeypatch.setattr(type(component.model), "default_threshold", high)
    assert len(nlp(TEXTS[4])._.relations) == sum(relation.score >= high for relation in everything)
    component.threshold = None
    assert len(nlp(TEXTS[4])._.relations) == len(everything)


def test_labels_that_the_model_cannot_use_fail_each_time(blank: Callable[[], Language], tiny_classifier: dict) -> None:
    nlp = blank()
    pipe = nlp.add_pipe("rel_classifier", config={"model": tiny_classifier, "labels": LABELS, "negative_label": None})
    for _ in range(2):
        with pytest.raises(ValueError, match="not trained on the labels rival"):
            pipe.make_schema(["rival"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("threshold", 1.5, "threshold = 1.5 is not a probability"),
        ("label_thresholds", {"rival": 0.5}, "unknown labels: rival"),
        ("temperature", 0, "slm_relations.temperature = 0, but it must be above 0"),
    ],
)
def test_settings_that_are_changed_later_are_checked(nlp: Language, setting: str, value: object, message: str) -> None:
    setattr(nlp.get_pipe("slm_relations"), setting, value)
    with pytest.raises(ValueError, match=message):
        nlp(TEXTS[0])

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from thinc.api import ConfigValidationError

from spacy_slmre.models.base import ModelError
from spacy_slmre.pipeline.settings import ExtractorSettings, configured_schema
from spacy_slmre.schema import LabelSchema
from tests.conftest import PATTERNS, TEXTS, threshold_between

LABELS = ["place of birth", "place of death", "employer", "sibling"]


@pytest.fixture
def nlp(blank: Callable[[], Language], tiny_model: dict) -> Language:
    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "labels": LABELS, "negative_label": None})
    return nlp


def found(doc: Doc) -> list[tuple]:
    return [(r.head.start_char, r.tail.start_char, r.label) for r in doc._.relations]


def scores(doc: Doc) -> list[float]:
    return [relation.score for relation in doc._.relations]


def test_adding_the_component_loads_nothing() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("slm_relations")
    assert not component.model.is_loaded
    assert component.schema == LabelSchema.general() and component.labels[-1] == "no_relation"
    problems = nlp.analyze_pipes()
    assert problems["summary"]["slm_relations"]["assigns"] == ["doc._.relations"]
    assert problems["problems"]["slm_relations"] == ["doc.ents"]


def test_relations_are_written_best_first(nlp: Language) -> None:
    doc = nlp(TEXTS[4])
    assert len(doc._.relations) == 8 * 7
    assert all(r.label in LABELS and 0 < r.score <= 1 for r in doc._.relations)
    assert scores(doc) == sorted(scores(doc), reverse=True)
    assert doc._.relations_report == {"considered": 56, "scored": 56, "truncated": 0, "skipped": {}}
    assert doc.text == TEXTS[4] and len(doc.ents) == 8


@pytest.mark.parametrize(("batch_size", "docs"), [(1, 1), (7, 2), (1000, 1000)])
def test_pipe_gives_the_same_relations_as_call(nlp: Language, batch_size: int, docs: int) -> None:
    alone = [nlp(text) for text in TEXTS]
    nlp.get_pipe("slm_relations").batch_size = batch_size
    together = list(nlp.pipe(TEXTS, batch_size=docs))
    assert [doc.text for doc in together] == TEXTS
    for one, other in zip(alone, together, strict=True):
        assert sorted(found(one)) == sorted(found(other))
        assert scores(one) == pytest.approx(scores(other), abs=1e-4)


def test_relations_below_the_threshold_are_not_written(blank: Callable[[], Language], tiny_model: dict) -> None:
    def run(**config: object) -> list:
        nlp = blank()
        nlp.add_pipe("slm_relations", config={"model": tiny_model, "labels": LABELS, **config})
        return nlp(TEXTS[4])._.relations

    everything = run(negative_label=None)
    assert all(relation.label != "employer" for relation in run(negative_label="employer"))
    high = threshold_between([relation.score for relation in everything])
    likely = {(r.head.start, r.tail.start, r.label) for r in everything if r.score >= high}
    assert {(r.head.start, r.tail.start, r.label) for r in run(negative_label=None, threshold=high)} == likely
    assert run(negative_label=None, threshold=1.0) == ()
    label = everything[0].label
    only = run(negative_label=None, threshold=1.0, label_thresholds={label: 0.0})
    assert {r.label for r in only} == {label} and len(only) == len(everything), (
        "any pair has at least the probability 0"
    )


def test_a_threshold_writes_several_labels_of_a_pair(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    config = {"model": tiny_model, "labels": LABELS, "threshold": 0.1, "max_labels_per_pair": 2}
    component = nlp.add_pipe("slm_relations", config=config)
    doc = nlp(TEXTS[4])
    expected = set()
    with pytest.raises(TypeError, match="list of documents"):
        component.predict_proba(doc)
    for pair in component.predict_proba([doc], k=5)[0]:
        best = [label for label, score in pair.labels if label != "no_relation" and score >= 0.1][:2]
        expected |= {(pair.head.start_char, pair.tail.start_char, label) for label in best}
    assert set(found(doc)) == expected
    assert len(expected) > len({pair[:2] for pair in expected}), "no pair has two labels"


def test_types_constrain_the_predicted_labels(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path) -> None:
    schema = {
        "negative_label": None,
        "labels": [
            {"name": "born", "types": [["PER", "LOC"]]},
            {"name": "kin", "types": [["PER", "PER"]]},
            {"name": "works", "types": [["PER", "ORG"]]},
        ],
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    nlp = blank()
    reference = str(tmp_path / "schema.json")
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": reference})
    relations = nlp(TEXTS[4])._.relations
    kinds = {(r.head.label_, r.label, r.tail.label_) for r in relations}
    assert kinds == {("PERSON", "born", "GPE"), ("PERSON", "kin", "PERSON"), ("PERSON", "works", "ORG")}


def test_relations_are_written_to_another_attribute(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    nlp.add_pipe(
        "slm_relations", config={"model": tiny_model, "labels": LABELS, "attr": "links", "negative_label": None}
    )
    doc = nlp(TEXTS[0])
    assert doc._.links and doc._.links_report["scored"] == 8
    assert doc[0:1]._.links
    gold = nlp.make_doc(TEXTS[0])
    relation = doc._.links[0]
    gold._.links = [
        (gold[relation.head.start : relation.head.end], gold[relation.tail.start : relation.tail.end], relation.label)
    ]
    assert nlp.evaluate([Example(nlp.make_doc(TEXTS[0]), gold)])["rel_micro_r"] == 1.0


def test_entities_of_a_span_group_may_be_nested(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    candidates = {"@misc": "spacy-slmre.EntityPairs.v1", "spans_key": "args"}
    component = nlp.add_pipe(
        "slm_relations",
        config={"model": tiny_model, "labels": LABELS, "negative_label": None, "candidates": candidates},
    )
    doc = nlp.make_doc("The University of Warsaw was cold.")
    doc.spans["args"] = [Span(doc, 1, 4, "ORG"), Span(doc, 3, 4, "GPE")]
    component(doc)
    assert {(r.head.text, r.tail.text) for r in doc._.relations} == {
        ("University of Warsaw", "Warsaw"),
        ("Warsaw", "University of Warsaw"),
    }


# -- long documents ------------------------------------------------------------------------------------


def test_long_sentence_is_truncated_with_one_warning(nlp: Language) -> None:
    filler = " ".join("word" for _ in range(2500))
    text = f"Ann Lee {filler} Bo Lee knew Marie Curie {filler} in Rome"
    with pytest.warns(UserWarning, match=r"relations_report") as caught:
        doc, _ = nlp(text), nlp(text)
    assert len(caught) == 1
    report = doc._.relations_report
    assert report["considered"] == 12 and report["scored"] == 2 and report["truncated"] == 2
    assert report["skipped"] == {"too_long": 10}
    assert {r.head.text for r in doc._.relations} == {"Bo Lee", "Marie Curie"}


def test_max_pairs_limits_documents_with_many_entities(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    candidates = {"@misc": "spacy-slmre.EntityPairs.v1", "max_pairs": 500}
    config = {"model": tiny_model, "labels": LABELS, "negative_label": None, "candidates": candidates}
    nlp.add_pipe("slm_relations", config=config)
    text = ", ".join(PATTERNS[n % 5]["pattern"] for n in range(300))
    with pytest.warns(UserWarning, match="cap"):
        doc = nlp(text)
    assert len(doc.ents) == 300
    report = doc._.relations_report
    assert report["considered"] == 300 * 299
    assert report["scored"] == 500 and report["skipped"] == {"cap": 300 * 299 - 500}
    assert len(doc._.relations) == 500


def test_pairs_that_exceed_the_limit_are_skipped(nlp: Language) -> None:
    nlp.get_pipe("slm_relations").max_context_tokens = 1
    with pytest.warns(UserWarning, match="too_long"):
        doc = nlp(TEXTS[0])
    assert doc._.relations_report["skipped"]["too_long"] == 8


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["candidates", "model"])
def test_failing_document_goes_to_the_error_handler_alone(
    nlp: Language, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    component = nlp.get_pipe("slm_relations")
    good = [nlp(text) for text in TEXTS]
    if where == "candidates":
        generate = component.candidates
        monkeypatch.setattr(
            component, "candidates", lambda doc, schema: 1 / 0 if "Nobody" in doc.text else generate(doc, schema)
        )
    else:
        log_probs = component.model.log_probs

        def fail(instances, *args, **kwargs):
            if any("married" in instance.context.text for instance in instances):
                raise RuntimeError("broken")
            return log_probs(instances, *args, **kwargs)

        monkeypatch.setattr(component.model, "log_probs", fail)
    failed: list[str] = []
    nlp.set_error_handler(lambda name, pipe, docs, error: failed.extend(doc.text for doc in docs))
    docs = list(nlp.pipe(TEXTS))
    assert failed == [TEXTS[2] if where == "candidates" else TEXTS[1]]
    assert [doc.text for doc in docs] == [text for text in TEXTS if text not in failed]
    assert [sorted(found(doc)) for doc in docs] == [sorted(found(doc)) for doc in good if doc.text not in failed]


def test_errors_are_raised_without_a_handler(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlp.get_pipe("slm_relations"), "candidates", lambda doc, schema: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nlp("Ann Lee was here.")
    with pytest.raises(ZeroDivisionError):
        list(nlp.pipe(TEXTS))


def test_missing_model_raises_an_error_before_the_first_document(blank: Callable[[], Language]) -> None:
    nlp = blank()
    model = {"@architectures": "spacy-slmre.SmallLM.v1", "base": "./nowhere"}
    nlp.add_pipe("slm_relations", config={"model": model})
    nlp.set_error_handler(lambda *args: None)

    def texts() -> Iterator[str]:
        pytest.fail("a document was read")
        yield "Ann Lee"

    with pytest.raises(ModelError, match="nowhere"):
        list(nlp.pipe(texts()))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"labels": []}, ValueError, "label set is empty"),
        ({"labels": ["a", "a"]}, ValueError, "more than once"),
        ({"labels": "abc"}, ConfigValidationError, "labels"),
        ({"threshold": 1.5}, ValueError, r"threshold = 1\.5 is not a probability"),
        ({"threshold": "high"}, ConfigValidationError, "threshold"),
        ({"labels": ["a"], "label_thresholds": {"zzz": 0.5}}, ValueError, "unknown labels: zzz"),
        ({"batch_size": 0}, ValueError, r"slm_relations\.batch_size = 0"),
        ({"max_context_tokens": 0}, ValueError, r"slm_relations\.max_context_tokens = 0"),
        ({"weights": "none"}, ValueError, 'weights = "none"'),
        ({"attr": "relation_pairs"}, ValueError, "reserved for gold annotation"),
        ({"model": "smollm2"}, ConfigValidationError, "model"),
        ({"candidates": {"@misc": "spacy-slmre.EntityPairs.v1", "max_pairs": 0}}, ValueError, "max_pairs"),
    ],
)
def test_bad_settings_raise_an_error_when_the_component_is_created(
    config: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spacy.blank("en").add_pipe("slm_relations", config=config)


# -- labels and training examples ----------------------------------------------------------------------


def test_labels_and_schema_together_raise_an_error(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"labels": ["a"]}')
    reference = str(tmp_path / "schema.json")
    with pytest.raises(ValueError, match="not both"):
        spacy.blank("en").add_pipe("slm_relations", config={"labels": ["a"], "schema": reference})


def test_initialize_sets_labels(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    component = nlp.add_pipe("slm_relations", config={"model": tiny_model})
    reference = nlp.make_doc("Ann Lee met Bo Lee")
    reference._.relation_pairs = [
        (reference[0:2], reference[3:5], "knows"),
        (reference[3:5], reference[0:2], "no_relation"),
    ]
    with pytest.warns(UserWarning, match="proposes none of their pairs"):
        nlp.initialize(lambda: [Example(nlp.make_doc(reference.text), reference)])
    assert component.labels == ("knows", "no_relation") and component.model.is_loaded
    reference._.relation_pairs = []
    component.initialize(lambda: [Example(reference, reference)], nlp=nlp, labels=["a", "b"])
    assert component.labels == ("a", "b", "no_relation")
    component.initialize(lambda: [Example(reference, reference)], nlp=nlp, labels=LabelSchema.general().to_dict())
    assert component.schema == LabelSchema.general() and component.label_data == LabelSchema.general().to_dict()


def test_initialize_keeps_configured_labels(nlp: Language) -> None:
    nlp.initialize()
    assert nlp.get_pipe("slm_relations").labels == tuple(LABELS)


def test_added_label_gets_a_wording(nlp: Language) -> None:
    component = nlp.get_pipe("slm_relations")
    before = len(nlp(TEXTS[0])._.relations)
    assert component.add_label("married_to") == 1 and component.add_label("married_to") == 0
    assert component.schema.labels[-1].wording == "married to"
    assert len(nlp(TEXTS[0])._.relations) == before
    with pytest.raises(ValueError, match="A label must be a string"):
        component.add_label(3)


def test_gold_relations_that_are_not_candidates_lower_recall(nlp: Language) -> None:
    reference = nlp(TEXTS[0])
    gold = nlp.make_doc(TEXTS[0])
    relation = reference._.relations[0]
    far = (gold[0:2], gold[7:8], "sibling")
    gold._.relations = [
        (gold[relation.head.start : relation.head.end], gold[relation.tail.start : relation.tail.end], relation.label),
        far,
    ]
    results = nlp.evaluate([Example(nlp.make_doc(gold.text), gold)])
    assert results["rel_micro_p"] == pytest.approx(1 / 8)
    assert results["rel_micro_r"] == results["rel_candidate_recall"] == 0.5
    assert results["rel_per_type"][relation.label]["r"] > 0


def test_plain_labels_get_the_wordings_of_the_model_and_on_request_its_types() -> None:
    tuned = {"labels": [{"name": "P19", "wording": "place of birth", "types": [["PER", "LOC"]]}]}
    for label_types in (False, True):
        settings = ExtractorSettings(labels=["P19", "P26"], label_types=label_types)
        chosen = configured_schema(settings, LabelSchema.from_dict(tuned))
        assert [label.wording for label in chosen.labels] == ["place of birth", "p26", "no relation"]
        assert chosen.labels[0].types == ((("PER", "LOC"),) if label_types else ())


@pytest.mark.parametrize("form", ["dict", "list", "file"])
def test_schema_in_a_config_is_used(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path, form: str) -> None:
    names = [{"name": "rival", "definition": "the two compete"}, {"name": "friend"}]
    schema: object = {"labels": names, "negative_label": "nothing"}
    if form == "list":
        schema = ["rival", "friend", "nothing"]
    elif form == "file":
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        schema = str(tmp_path / "schema.json")
    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": schema, "negative_label": "nothing"})
    nlp.to_disk(tmp_path / "saved")
    for one in (nlp, spacy.util.load_model_from_config(nlp.config), spacy.load(tmp_path / "saved")):
        assert one.get_pipe("slm_relations").labels == ("rival", "friend", "nothing")
    assert (form == "list") == (nlp.get_pipe("slm_relations").schema.labels[0].definition == "")


def test_a_type_map_applies_next_to_labels(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path) -> None:
    nlp = blank()
    component = nlp.add_pipe(
        "slm_relations", config={"model": tiny_model, "labels": ["owns"], "type_map": {"Firm": "ORG"}}
    )
    assert component.schema.map_type("FIRM") == "ORG" and component.schema.allowed_types is None
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path, config={"components.slm_relations.type_map": {"Shop": "ORG"}})
    assert loaded.get_pipe("slm_relations").schema.map_type("shop") == "ORG"


def test_nan_values_are_an_error(nlp: Language) -> None:
    network = nlp.get_pipe("slm_relations").model.network
    with torch.no_grad():
        network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN values\. Set model\.dtype"):
        nlp(TEXTS[0])


# -- processes -----------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_give_the_same_relations(nlp: Language, method: str) -> None:
    # Predict in this process first, although forking after torch's threads have run can hang.
    alone = [nlp(text) for text in TEXTS * 3]
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            together = list(nlp.pipe(TEXTS * 3, n_process=2, batch_size=4))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert [sorted(found(doc)) for doc in together] == [sorted(found(doc)) for doc in alone]
    for one, other in zip(alone, together, strict=True):
        assert scores(one) == pytest.approx(scores(other), abs=1e-4)
        assert one._.relations_report == other._.relations_report

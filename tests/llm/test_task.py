from __future__ import annotations

import json
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_slmre.llm.component import get_llm_component, get_llm_components
from spacy_slmre.llm.cost import estimate
from spacy_slmre.llm.task import RelationTask
from spacy_slmre.relations import join_docs, span_as_doc
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.errors import ServiceError
from tests.conftest import TEXTS
from tests.llm.conftest import LABELS, ChatServer, failure

TEXT = "Ann Lee was born in Rome."


def answer_by_pair(question: str) -> str:
    """Answer like a good model."""
    pair = question.splitlines()[-1]
    known = {"Ann Lee (PER) to Rome (LOC):": "Place of birth", "Rome (LOC) to Ann Lee (PER):": "no relation"}
    return known.get(pair, "unknown label")


@pytest.fixture
def nlp(make_nlp: Callable, make_model: Callable, server: ChatServer) -> Language:
    server.answer = answer_by_pair
    return make_nlp(make_model())


def found(doc: Doc) -> list[tuple[str, str, str]]:
    return [(r.head.text, r.label, r.tail.text) for r in doc._.relations]


# -- documents -------------------------------------------------------------------------------------------


def test_relations_answers_and_report(nlp: Language, server: ChatServer) -> None:
    doc = nlp(TEXT)
    assert found(doc) == [("Ann Lee", "place of birth", "Rome")]
    assert doc._.relations[0].score == 1.0
    assert doc._.relation_answers == [
        {"head": [0, 7], "tail": [20, 24], "answer": "Place of birth", "label": "place of birth"},
        {"head": [20, 24], "tail": [0, 7], "answer": "no relation", "label": "no_relation"},
    ]
    assert doc._.relations_report == {
        **{"considered": 2, "scored": 2, "truncated": 0, "skipped": {}},
        **{"out_of_schema": 0, "ill_typed": 0, "unanswered": 0},
    }
    # Concurrent requests arrive in any order.
    (system, user), _ = sorted((body["messages"] for *_, body in server.requests), key=str)
    assert system["role"] == "system" and all(f"- {label}" in system["content"] for label in LABELS)
    assert user["content"].startswith("Text: [1 Ann Lee] was born in [2 Rome].\nAnn Lee (PER) to")


def test_unanswered_and_unknown_answers_are_counted(nlp: Language, server: ChatServer) -> None:
    server.script = [failure(400, "no such words")]
    nlp.get_pipe("relations")._model.concurrency = 1
    with pytest.warns(UserWarning, match=r"a pair was not answered \(.*400: no such words\)"):
        doc = nlp("Ann Lee met Bo Lee of Red Mill.")
    answers = doc._.relation_answers
    assert len(answers) == 6
    assert [(one["answer"], one["label"]) for one in answers] == [(None, None)] + [("unknown label", None)] * 5
    report = doc._.relations_report
    assert (report["out_of_schema"], report["unanswered"], report["scored"]) == (5, 1, 6)
    assert doc._.relations == ()


def test_pipe_equals_call_also_without_pairs(nlp: Language) -> None:
    single = [nlp(text) for text in TEXTS]
    processed = list(nlp.pipe(TEXTS, batch_size=3))
    assert [doc.text for doc in processed] == TEXTS
    for one, other in zip(single, processed, strict=True):
        assert one._.relation_answers == other._.relation_answers
        assert one._.relations_report == other._.relations_report
    assert single[2]._.relation_answers == []


@pytest.mark.parametrize("save_io", [False, True])
def test_documents_keep_their_annotations(nlp: Language, save_io: bool) -> None:
    for name, settings in {
        "zero_unset": {"default": None},
        "zero_list": {"default": []},
        "zero_set": {"default": None},
        "zero_computed": {"getter": lambda doc: None},
    }.items():
        Doc.set_extension(name, **settings, force=True)
    try:
        nlp.get_pipe("relations")._save_io = save_io
        docs = []
        for text in TEXTS:
            doc = nlp.make_doc(text)
            for _, pipe in nlp.pipeline[:-1]:
                doc = pipe(doc)
            doc.user_data["mine"] = {"a": 1}
            doc._.zero_set = "kept"
            docs.append(doc)
        before = [(doc.to_json(), doc.to_array(["ORTH", "ENT_TYPE", "SENT_START"]).tolist()) for doc in docs]
        data = [dict(doc.user_data) for doc in docs]
        after = list(nlp.get_pipe("relations").pipe(docs))
        assert all(one is other for one, other in zip(after, docs, strict=True))
        for doc, (as_json, tokens), others in zip(after, before, data, strict=True):
            assert doc.to_json() == as_json
            assert doc.to_array(["ORTH", "ENT_TYPE", "SENT_START"]).tolist() == tokens
            ours = {"relations", "relation_answers", "relations_report"}
            added = doc.user_data.keys() - others.keys()
            assert added == {f"spacy_slmre.{name}" for name in ours} | ({"llm_io"} if save_io else set())
            assert {key: doc.user_data[key] for key in others} == others
    finally:
        for name in ("zero_unset", "zero_list", "zero_set", "zero_computed"):
            Doc.remove_extension(name)


def test_answers_survive_bytes_docbin_and_pickle(nlp: Language) -> None:
    doc = nlp(TEXT)
    expected = doc._.relation_answers
    assert Doc(nlp.vocab).from_bytes(doc.to_bytes())._.relation_answers == expected
    assert pickle.loads(pickle.dumps(doc))._.relation_answers == expected
    binary = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (again,) = DocBin().from_bytes(binary).get_docs(nlp.vocab)
    assert again._.relation_answers == expected and found(again) == found(doc)


def test_answers_follow_split_and_joined_documents(nlp: Language) -> None:
    doc = nlp(f"Nothing here. {TEXT}")
    (_, sentence) = doc.sents
    assert span_as_doc(sentence)._.relation_answers[0]["head"] == [0, 7]
    joined = join_docs([nlp(TEXT), nlp(TEXT)])
    assert [one["tail"] for one in joined._.relation_answers] == [[20, 24], [0, 7], [46, 50], [26, 33]]


def test_label_with_other_entity_types_is_counted(make_nlp, make_model, tmp_path: Path) -> None:
    labels = [{"name": "place of birth", "types": [["PER", "LOC"]]}, {"name": "site", "types": [["LOC", "PER"]]}]
    (tmp_path / "schema.json").write_text(json.dumps({"labels": labels}))
    schema = str(tmp_path / "schema.json")
    doc = make_nlp(make_model(), schema=schema)(TEXT)  # the model answers both with "place of birth"
    assert found(doc) == [("Ann Lee", "place of birth", "Rome")]
    assert doc._.relations_report["ill_typed"] == 1
    assert [one["label"] for one in doc._.relation_answers] == ["place of birth"] * 2


def test_given_pairs_and_custom_attribute(make_nlp, make_model) -> None:
    candidates = {"@misc": "spacy-slmre.GivenPairs.v1"}
    nlp = make_nlp(make_model(), with_entities=False, candidates=candidates, attr="links")
    doc = nlp.make_doc(TEXT)
    doc._.relation_candidates = [(Span(doc, 0, 2, "PER"), Span(doc, 5, 6, "LOC"))]
    doc = nlp(doc)
    assert [(r.head.text, r.label) for r in doc._.links] == [("Ann Lee", "place of birth")]
    assert doc._.links_report["scored"] == len(doc._.relation_answers) == 1


def test_long_contexts_are_truncated_around_the_pair(make_nlp, make_model, server: ChatServer) -> None:
    nlp = make_nlp(make_model(), max_context_words=12)
    with pytest.warns(UserWarning, match="too long or has too many pairs"):
        doc = nlp("Ann Lee " + "and so on " * 200 + "was with Bo Lee in Rome")
    assert doc._.relations_report["truncated"] == 2
    assert doc._.relations_report["skipped"] == {"too_long": 4}
    assert all(len(body["messages"][-1]["content"]) < 200 for _, _, body in server.requests)


def test_examples_are_messages(make_nlp, make_model, server: ChatServer, tmp_path: Path) -> None:
    shown = {"text": "Bo works for Acme", "head": [0, 2, "PER"], "tail": [13, 17, ""], "label": "employer"}
    (tmp_path / "shown.jsonl").write_text(json.dumps(shown))
    make_nlp(make_model(), examples=str(tmp_path / "shown.jsonl"))(TEXT)
    messages = server.requests[0][2]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "employer"
    with pytest.raises(ValueError, match=r'examples = "nowhere\.jsonl" cannot be read'):
        make_nlp(make_model(), examples="nowhere.jsonl")(TEXT)


# -- errors ----------------------------------------------------------------------------------------------


def test_refused_key_raises_a_clear_error(nlp: Language, server: ChatServer) -> None:
    server.always = failure(401, "bad key")
    with pytest.raises(ServiceError, match="bad key"):
        list(nlp.pipe([TEXT] * 3))


def test_missing_answers_of_a_model_raise(nlp: Language) -> None:
    nlp.get_pipe("relations")._model = lambda prompts: [[] for _ in prompts]
    with pytest.raises(ValueError, match="0 answers to the 2 prompts"):
        nlp(TEXT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_context_words": 0}, "max_context_words = 0"),
        ({"labels": []}, "label set is empty"),
        ({"attr": "relation_answers"}, "reserved for gold annotation, answers or reports"),
    ],
)
def test_bad_settings_are_refused(make_nlp, make_model, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_nlp(make_model(), **settings)


# -- labels and training data ---------------------------------------------------------------------------


def test_labels_can_be_added_and_cleared(nlp: Language) -> None:
    component = nlp.get_pipe("relations")
    assert component.labels == (*LABELS, "no_relation") == tuple(nlp.pipe_labels["relations"])
    assert component.add_label("spouse", "the two are married") == 1 and component.add_label("spouse") == 0
    assert component.task.schema.labels[3].definition == "the two are married"
    component.clear()
    assert component.labels == ()
    with pytest.raises(ValueError, match="has no labels"):
        nlp(TEXT)
    component.add_label("place of birth")
    assert component.labels == ("place of birth", "no_relation")
    assert found(nlp(TEXT)) == [("Ann Lee", "place of birth", "Rome")]


def test_labels_of_an_unread_file_are_not_added_again(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"labels": LABELS}))
    task = RelationTask(schema=str(tmp_path / "schema.json"))
    assert task.add_label(LABELS[0]) == 0 and task.add_label("spouse") == 1


def test_labels_and_prompt_can_be_set(make_nlp, make_model, server: ChatServer) -> None:
    nlp = make_nlp(make_model(), labels=None)
    task = get_llm_component(nlp)[1].task
    assert not task.has_own_labels
    task.schema = LabelSchema.from_labels(["born there"], None)
    task.style = replace(task.style, label_list=False)
    assert task.has_own_labels and task.labels == ("born there",)
    server.answer = lambda question: "none"
    report = nlp(TEXT)._.relations_report
    assert (report["scored"], report["out_of_schema"]) == (2, 2)  # there is no negative label
    assert "born there" not in server.requests[0][2]["messages"][0]["content"]


def gold(nlp: Language) -> Example:
    doc = nlp.make_doc(TEXT)
    doc.ents = [Span(doc, 0, 2, "PERSON"), Span(doc, 5, 6, "GPE")]
    doc._.relations = [(*doc.ents, "place of birth")]
    return Example(nlp.make_doc(TEXT), doc)


def test_initialize_takes_labels_and_examples_from_the_data(make_nlp, make_model, server: ChatServer) -> None:
    nlp = make_nlp(make_model(), with_entities=False, labels=None)
    task = get_llm_component(nlp)[1].task
    assert task.schema == LabelSchema.general()
    nlp.config["initialize"]["components"] = {"relations": {"n_prompt_examples": 1}}
    nlp.initialize(lambda: [gold(nlp)])
    assert task.labels == ("place of birth", "no_relation")
    assert not server.requests
    nlp(gold(nlp).reference)
    assert server.requests[0][2]["messages"][2] == {"role": "assistant", "content": "place of birth"}


def test_examples_are_taken_from_the_attribute_of_the_task() -> None:
    task = RelationTask(attr="found_relations")
    doc = spacy.blank("en")(TEXT)
    doc._.found_relations = [(doc[0:2], doc[5:6], "place of birth")]
    task.initialize(lambda: [Example(doc, doc)], n_prompt_examples=-1)
    assert task.labels == ("place of birth", "no_relation")
    assert [shown["label"] for shown in task.style.examples] == ["place of birth"]


def test_relations_are_scored_against_gold(nlp: Language) -> None:
    scores = nlp.evaluate([gold(nlp)])
    assert scores["rel_micro_f"] == 1.0 and scores["rel_candidate_recall"] == 1.0


# -- serialization ----------------------------------------------------------------------------------------


def test_saved_pipeline_contains_labels_and_prompt(make_nlp, make_model, tmp_path: Path, server) -> None:
    shown = {"text": "Bo works for Acme", "head": [0, 2, "PER"], "tail": [13, 17, ""], "label": "employer"}
    (tmp_path / "shown.jsonl").write_text(json.dumps(shown))
    (tmp_path / "schema.json").write_text(json.dumps({"labels": LABELS}))
    schema = str(tmp_path / "schema.json")
    nlp = make_nlp(make_model(), schema=schema, examples=str(tmp_path / "shown.jsonl"))
    nlp.get_pipe("relations").add_label("spouse")
    nlp(TEXT)
    nlp.to_disk(tmp_path / "pipeline")
    for name in ("shown.jsonl", "schema.json"):
        (tmp_path / name).unlink()
    from_disk = spacy.load(tmp_path / "pipeline")
    from_bytes = make_nlp(make_model()).from_bytes(nlp.to_bytes())
    for again in (from_disk, from_bytes):
        assert again.get_pipe("relations").labels == (*LABELS, "spouse", "no_relation")
    from_disk(TEXT)
    bodies = [body for _, _, body in server.requests]
    assert sorted(map(json.dumps, bodies[:2])) == sorted(map(json.dumps, bodies[2:]))


@pytest.mark.parametrize("form", ["list", "dict", "path"])
def test_schema_is_a_list_a_dict_or_a_file(make_nlp, make_model, tmp_path: Path, form: str) -> None:
    schema = {"labels": [{"name": "born", "wording": "place of birth"}], "negative_label": None}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    settings = {"list": ["born"], "dict": schema, "path": str(tmp_path / "schema.json")}
    negative_label = {"negative_label": None} if form == "list" else {}
    nlp = make_nlp(make_model(), schema=settings[form], **negative_label)
    assert nlp.get_pipe("relations").labels == ("born",)
    nlp.to_disk(tmp_path / "pipeline")
    assert spacy.load(tmp_path / "pipeline").get_pipe("relations").task.schema == nlp.get_pipe("relations").task.schema


def test_missing_files_raise_at_first_use(make_nlp, make_model, tmp_path: Path) -> None:
    schema = str(tmp_path / "nowhere.json")
    nlp = make_nlp(make_model(), schema=schema)
    with pytest.raises(ValueError, match=r"nowhere\.json cannot be read"):
        nlp(TEXT)


def test_components_can_be_pickled(nlp: Language) -> None:
    again = pickle.loads(pickle.dumps(nlp.get_pipe("relations")))
    doc = nlp(TEXT, disable=["relations"])
    assert found(again(doc)) == [("Ann Lee", "place of birth", "Rome")]


@pytest.mark.timeout(120)
def test_worker_processes_give_the_same_results(nlp: Language) -> None:
    single = [nlp(text) for text in TEXTS]
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            processed = list(nlp.pipe(TEXTS, n_process=2, batch_size=2))
    finally:
        multiprocessing.set_start_method(before, force=True)
    for one, other in zip(single, processed, strict=True):
        assert found(one) == found(other)
        assert one._.relation_answers == other._.relation_answers


# -- finding the component, cost estimates ------------------------------------------------------


def test_component_is_found(nlp: Language, make_model) -> None:
    assert get_llm_component(nlp) == ("relations", nlp.get_pipe("relations"))
    config = {"task": {"@llm_tasks": "spacy-slmre.RelationClassification.v1"}, "model": make_model()}
    nlp.add_pipe("llm", name="more", config=config)
    with pytest.raises(ValueError, match="choose one of relations, more"):
        get_llm_component(nlp)
    assert get_llm_component(nlp, "more")[0] == "more"
    nlp.add_pipe("llm", name="other", config={**config, "task": {"@llm_tasks": "spacy.NoOp.v1"}})
    assert list(get_llm_components(nlp)) == ["relations", "more"]
    with pytest.raises(ValueError, match='no LLM component "ner": choose one of relations, more'):
        get_llm_component(nlp, "ner")
    with pytest.raises(ValueError, match="components: none"):
        get_llm_component(spacy.blank("en"))


def test_cost_is_estimated_without_requests(make_nlp, make_model, server: ChatServer, tmp_path: Path) -> None:
    settings = {"cache": str(tmp_path / "answers.sqlite")}
    nlp = make_nlp(make_model(**settings))
    docs = list(nlp.pipe([TEXTS[0], TEXTS[1], TEXTS[2]], disable=["relations"]))
    component = get_llm_component(nlp)[1]
    first = estimate(component, docs)
    assert (first.pairs, first.requests, first.cost) == (8 + 2, 8 + 2, None)
    assert first.output_tokens == 10 * 4  # "place of birth" has 14 bytes
    assert "10 requests to some-model at" in str(first) and "cost unknown" in str(first)
    assert not server.requests
    twice = estimate(component, [*docs, *docs])  # equal prompts are sent once
    assert (twice.pairs, twice.requests, twice.input_tokens) == (20, 10, first.input_tokens)
    list(component.pipe([docs[1]]))
    sent = sum(len(json.dumps(body["messages"])) for _, _, body in server.requests)
    prices = {"input_price": 30.0, "output_price": 15.0}
    priced = estimate(get_llm_component(make_nlp(make_model(**settings, **prices)))[1], docs)
    assert (priced.pairs, priced.requests) == (10, 8)
    saved = first.input_tokens - priced.input_tokens
    assert 0.6 * sent < 4 * saved < 1.1 * sent
    assert priced.cost == (priced.input_tokens * 30 + priced.output_tokens * 15) / 1_000_000
    assert "of 10 pairs, 2 need none" in str(priced) and "about 0.02 US dollars" in str(priced)
    assert "less than 0.01 US dollars" in str(replace(priced, cost=0.001))

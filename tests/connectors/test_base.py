"""What all connectors share."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
import spacy
from spacy.language import Language

from spacy_slmre.connectors.base import PipelineRunner, make_graph
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument
from spacy_slmre.schema import LabelSchema
from tests.conftest import TEXTS
from tests.relation_documents import hostile_document

EXTRAS = {
    "langchain": "langchain_neo4j",
    "llama_index": "llama_index",
    "neo4j_graphrag": "neo4j_graphrag",
    "mcp": "mcp",
}


def labels_of(documents: list[RelationDocument]) -> set[str]:
    return {relation.label for document in documents for relation in document.relations}


def test_a_failed_text_is_reported_in_its_place(nlp: Language) -> None:
    nlp.max_length = 90
    documents = PipelineRunner(nlp, batch_size=2).run(TEXTS, list("abcdef"))
    assert [document.id for document in documents] == list("abcdef")
    assert documents[2].error == "RuntimeError: this text is too sad"
    assert "more than nlp.max_length (90)" in str(documents[4].error)
    for number in (0, 1, 3, 5):
        assert documents[number].error is None and documents[number].text == TEXTS[number]
        assert documents[number].relations or not TEXTS[number]
    with pytest.warns(UserWarning, match="2 of 6 texts failed and have no relations. The first: c: RuntimeError"):
        graphs = PipelineRunner(nlp).graphs(TEXTS, list("abcdef"))
    assert [graph.error is None for graph in graphs] == [True, True, False, True, False, True]


def test_labels_and_threshold_replace_those_of_the_pipeline_in_one_call(nlp: Language) -> None:
    component: Any = nlp.get_pipe("slm_relations")
    runner = PipelineRunner(nlp)
    assert labels_of(runner.run(TEXTS[:2])) <= {"knows", "employer"}
    assert labels_of(runner.run(TEXTS[:2], labels=["rival", "sibling"])) <= {"rival", "sibling"}
    assert labels_of(PipelineRunner(nlp, labels=["rival"]).run(TEXTS[:2])) == {"rival"}
    scores = sorted(relation.score for relation in runner.run([TEXTS[4]])[0].relations)
    middle = scores[len(scores) // 2]
    (kept,) = runner.run([TEXTS[4]], threshold=middle)
    assert kept.relations and min(relation.score for relation in kept.relations) >= middle
    assert component.threshold == "auto" and component.labels == ("knows", "employer")


def test_settings_are_checked_before_anything_is_loaded() -> None:
    for settings, message in [
        ({"level": "documents"}, "mentions, facts"),
        ({"batch_size": 0}, "at least 1"),
        ({"threshold": 1.5}, "not a probability"),
        ({"threshold": "0.5"}, "not a probability"),
        ({"labels": []}, "label set is empty"),
        ({"labels": 5}, "A schema must be a list"),
        ({"labels": "no_such_file.json"}, "cannot be read"),
    ]:
        with pytest.raises(ValueError, match=message):
            PipelineRunner("no_such_pipeline", **settings)
    runner = PipelineRunner("no_such_pipeline")
    with pytest.raises(ValueError, match="neither an installed package nor a folder"):
        runner.run(["text"])
    with pytest.raises(ValueError, match=r'no relation component.*Add "slm_relations"'):
        PipelineRunner(spacy.blank("en")).run(["text"])


def test_wrong_labels_of_a_call_are_one_error_and_not_one_for_each_text(nlp: Language) -> None:
    with pytest.raises(ValueError, match="Labels must be unique"):
        PipelineRunner(nlp).run(TEXTS, labels=["rival", "rival"])


def test_calls_at_the_same_time_have_the_results_of_single_calls(pipeline: str) -> None:
    runner = PipelineRunner(pipeline)
    expected = [runner.run([text], [text], labels=labels) for text in TEXTS for labels in (None, ["rival", "sibling"])]

    async def run_all() -> list[list[RelationDocument]]:
        calls = [
            runner.arun([text], [text], labels=labels) for text in TEXTS for labels in (None, ["rival", "sibling"])
        ]
        return await asyncio.gather(*calls)

    assert asyncio.run(run_all()) == expected
    assert any(document.relations for (document,) in expected)


def test_offsets_and_wordings_are_kept_as_plain_properties(nlp: Language) -> None:
    labels = {"labels": [{"name": "P26", "wording": "married to", "symmetric": True}], "negative_label": None}
    runner = PipelineRunner(nlp, labels=labels)
    (graph,) = runner.graphs([TEXTS[0]], ["a"])
    assert graph.relations
    for relation in graph.relations:
        found = relation.properties
        assert all(type(value) in (str, int, float, bool) for value in found.values()), found
        assert TEXTS[0][found["sentence_start"] : found["sentence_end"]] == found["sentence"]
        for side in ("head", "tail"):
            name = getattr(relation, side).properties["name"]
            assert TEXTS[0][found[f"{side}_start"] : found[f"{side}_end"]] == name
        assert (found["label"], found["wording"], found["inverse"]) == (relation.label, "married to", "P26")
        assert found["document"] == "a" and found["symmetric"] and 0 < found["score"] <= 1
        assert found["model"].endswith("slm_relations")
        assert [source["sentence"] for source in json.loads(found["sources"])] == [found["sentence"]]


def test_entities_are_nodes_under_one_id_and_mentions_are_not() -> None:
    text = "Ann met Bo. She and ann like bo."
    ann, bo, other, low = (
        EntityMention(start, end, text[start:end], "PERSON") for start, end in [(0, 3), (8, 10), (20, 23), (29, 31)]
    )
    linked = EntityMention(8, 10, "Bo", "PERSON", kb_id="Q7")
    relations = (DocumentRelation(ann, bo, "knows", 0.6), DocumentRelation(other, low, "knows", 0.9))
    document = RelationDocument("a", text, (ann, bo, other, low), relations)
    schema = LabelSchema.from_labels(["knows"])
    facts, mentions = (make_graph(document, schema, level) for level in ("facts", "mentions"))
    assert [node.id for node in facts.nodes] == ["Ann", "Bo"]
    (fact,) = facts.relations
    assert (fact.properties["score"], fact.properties["count"]) == (0.9, 2)
    assert fact.properties["head_start"] == 20 and len(json.loads(fact.properties["sources"])) == 2
    assert len({node.id for node in mentions.nodes}) == 4 and len(mentions.relations) == 2
    with_id = RelationDocument("a", text, (ann, linked), (DocumentRelation(ann, linked, "knows"),))
    node = make_graph(with_id, schema).nodes[1]
    assert node.id == "Q7"
    assert node.properties == {"name": "Bo", "type": "PERSON", "kb_id": "Q7", "key": "id:Q7"}


@pytest.mark.parametrize("level", ["facts", "mentions"])
def test_hostile_names_and_labels_give_a_consistent_graph(level: str) -> None:
    graph = make_graph(hostile_document(), LabelSchema.from_labels(["knows"]), level)
    ids = [node.id for node in graph.nodes]
    assert len(ids) == len(set(ids)) and graph.relations
    assert all(relation.head in graph.nodes and relation.tail in graph.nodes for relation in graph.relations)


@pytest.mark.parametrize("connector", EXTRAS)
def test_a_missing_package_is_an_error_that_names_the_extra(connector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # None makes the import system raise ModuleNotFoundError.
    for name in [*sys.modules]:
        if name.partition(".")[0] == EXTRAS[connector] or name == f"spacy_slmre.connectors.{connector}":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, EXTRAS[connector], None)
    extra = connector.replace("_", "-")
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'spacy-slmre\[{extra}\]'"):
        __import__(f"spacy_slmre.connectors.{connector}")


@pytest.mark.slow
def test_importing_the_connectors_loads_no_model_library_and_opens_no_connection() -> None:
    names = ", ".join(f"spacy_slmre.connectors.{connector}" for connector in EXTRAS)
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        f"import {names}\n"
        "print([name for name in ('peft', 'bitsandbytes', 'datasets', 'openvino', 'gguf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

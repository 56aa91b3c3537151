from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_slmre import Fact, LabelSchema, facts_of
from spacy_slmre.coreference import CLUSTERS, MentionCluster, find_clusters
from spacy_slmre.documents import DocumentRelation, EntityMention, RelationDocument, set_provenance
from spacy_slmre.export import fact_edges, make_edges, merge_edges
from spacy_slmre.facts import combine_scores, distinct_relations, find_entities, make_facts
from spacy_slmre.relations import install_extensions, join_docs, span_as_doc, write_label_properties
from tests.relation_documents import documents, make_document

INVERSES = {"spouse": "spouse", "child": "parent"}
Pairs = list[tuple[int, int, str, float]]


def document(words: list[str], pairs: Pairs, *clusters: tuple[str, Sequence[int]], **values: Any) -> RelationDocument:
    """Make a document with words as entities, and clusters of them by number."""
    made = make_document(values.pop("id", "a"), words, ["PER"] * len(words), pairs)
    bounds = [(entity.start, entity.end) for entity in made.entities]
    found = tuple(MentionCluster(tuple(bounds[one] for one in members), name) for name, members in clusters)
    return RelationDocument(**{**vars(made), "clusters": found, "inverse_of": INVERSES, **values})


def texts(document: RelationDocument) -> list[tuple[str, str, str, int]]:
    facts = make_facts(document)
    return [(fact.head.name, fact.label, fact.tail.name, len(fact.relations)) for fact in facts]


# -- entities ----------------------------------------------------------------------------------------


def test_equal_names_and_coreferent_mentions_are_one_entity() -> None:
    pairs: Pairs = [(0, 1, "in", 0.5), (2, 1, "in", 0.9), (3, 1, "in", 0.7)]
    made = document(["Ann Lee", "Rome", "ANN  lee", "she"], pairs, ("Ann Lee", [0, 3]))
    (fact,) = make_facts(made)
    assert (fact.head.name, fact.tail.name, fact.score) == ("Ann Lee", "Rome", 0.9)
    assert [mention.text for mention in fact.head.mentions] == ["Ann Lee", "ANN  lee", "she"]
    assert [relation.score for relation in fact.relations] == [0.9, 0.7, 0.5]
    assert fact.sentences == (made.text,) * 3


def test_ids_take_precedence_over_clusters_and_clusters_over_texts() -> None:
    made = document(["Ann Lee", "Ms Lee", "she", "Bo", "Ann Lee"], [], ("Ann Lee", [0, 2, 3]))
    ids = ["Q1", "Q1", "", "Q2", ""]
    entities = tuple(
        EntityMention(one.start, one.end, one.text, one.type, kb_id)
        for one, kb_id in zip(made.entities, ids, strict=True)
    )
    made = RelationDocument(**{**vars(made), "entities": entities})
    keys = [find_entities(made)[one.key].key for one in entities]
    # "Bo" is in the cluster but has another id. A mention without an id is not linked just because another one with
    # the same text is.
    assert keys == ["id:Q1", "id:Q1", "id:Q1", "id:Q2", "text:ann lee"]
    assert find_entities(made)[entities[2].key].name == "Ann Lee"


def test_clusters_with_the_same_name_are_one_entity_in_all_documents() -> None:
    one = document(["Ann", "she", "Rome"], [(1, 2, "in", 0.5)], ("Ann", [0, 1]), id="one")
    two = document(["Rome", "Ann", "her"], [(2, 0, "in", 0.6)], ("Ann", [1, 2]), id="two")
    (edge,) = merge_edges([one, two])
    assert (edge.head.text, edge.count, edge.score) == ("Ann", 2, 0.6)
    assert [edge.head.text for edge in fact_edges([one, two])] == ["Ann", "Ann"]
    assert len({edge.head.key for edge in fact_edges([one, two])}) == 2
    assert len(merge_edges([one, two], "type")) == 1


def test_a_cluster_without_a_name_is_an_entity_of_its_own() -> None:
    pairs: Pairs = [(0, 1, "in", 0.5), (2, 1, "in", 0.6), (3, 1, "in", 0.7), (4, 1, "in", 0.8)]
    made = [document(["he", "Rome", "his", "He", "him"], pairs, ("", [0, 2]), ("", [3, 4]), id=id) for id in "ab"]
    assert texts(made[0]) == [("He", "in", "Rome", 2), ("he", "in", "Rome", 2)]
    assert len(merge_edges(made)) == 4


def test_a_mention_in_two_clusters_belongs_to_the_first() -> None:
    made = document(["Ann", "Bo", "they"], [(2, 1, "in", 0.5)], ("Ann", [0, 2]), ("Bo", [1, 2]))
    assert texts(made) == [("Ann", "in", "Bo", 1)]
    assert [entity.name for entity in find_entities(made).values()] == ["Ann", "Ann", "Bo"]


def test_types_keep_namesakes_apart_on_request() -> None:
    made = make_document("a", ["Washington", "Washington"], ["PER", "LOC"], [(0, 1, "in", 1.0)])
    assert [len({entity.key for entity in find_entities(made, by).values()}) for by in ("text", "type")] == [1, 2]
    (fact,) = make_facts(made, "type")
    assert (fact.head.type, fact.tail.type) == ("PER", "LOC")


def test_nested_mentions_are_entities_of_their_own() -> None:
    long, short, tail = (
        EntityMention(0, 18, "University of Rome"),
        EntityMention(14, 18, "Rome"),
        EntityMention(22, 27, "Italy"),
    )
    relations = tuple(DocumentRelation(one, tail, "in", 0.5) for one in (long, short))
    made = RelationDocument("a", "University of Rome in Italy", (long, short, tail), relations)
    assert [name for name, *_ in texts(made)] == ["University of Rome", "Rome"]


def test_a_document_without_entities_or_relations_has_no_facts() -> None:
    for made in (RelationDocument("a", ""), document(["Ann"], []), RelationDocument("a", "", error="failed")):
        assert make_facts(made) == [] and merge_edges([made]) == []
    assert facts_of(spacy.blank("en")("")) == ()


def test_300_entities_with_all_relations_take_seconds() -> None:
    count = 300
    pairs: Pairs = [(head, tail, "in", 0.5) for head in range(count) for tail in range(0, count, 3) if head != tail]
    clusters = [("", range(number, number + 3)) for number in range(0, count, 3)]
    made = document([f"name {number}" for number in range(count)], pairs, *clusters)
    start = time.perf_counter()
    facts = make_facts(made)
    assert time.perf_counter() - start < 20
    between = sum(head // 3 != tail // 3 for head, tail, *_ in pairs)
    assert len(facts) == 100 * 99 and sum(len(fact.relations) for fact in facts) == between


# -- symmetry, inverses and scores -------------------------------------------------------------------


def test_symmetric_and_inverse_relations_are_one_fact() -> None:
    pairs: Pairs = [(1, 0, "spouse", 0.8), (0, 1, "spouse", 0.6), (0, 2, "parent", 0.5), (2, 0, "child", 0.7)]
    made = document(["Ann", "Bo", "Cy"], pairs)
    assert texts(made) == [("Ann", "spouse", "Bo", 1), ("Ann", "parent", "Cy", 1)]
    spouse, parent = make_facts(made)
    assert (spouse.score, spouse.symmetric, spouse.inverse) == (0.8, True, "spouse")
    assert (parent.score, parent.symmetric, parent.inverse) == (0.7, False, "child")
    assert len(list(make_edges([made]))) == len(list(fact_edges([made]))) == len(merge_edges([made])) == 2
    # The relations that support a fact have its direction.
    for fact in (spouse, parent):
        for relation in fact.relations:
            assert relation.head in fact.head.mentions and relation.tail in fact.tail.mentions
            assert relation.label == fact.label


def test_an_entity_has_no_relation_to_itself() -> None:
    # Two mentions of the same name are a pair, but one entity.
    assert texts(document(["Kofi", "Ama", "Kofi"], [(0, 2, "teacher", 0.9), (0, 1, "teacher", 0.5)])) == [
        ("Kofi", "teacher", "Ama", 1)
    ]


def test_facts_of_predicted_documents_do_not_contradict_each_other() -> None:
    # "Ann is the mother of Bo. Ann obeyed Bo.": each pair of mentions is consistent by itself.
    words = ["Ann", "Bo", "Ann", "Bo", "Rome", "Oslo"]
    pairs: Pairs = [(1, 0, "parent", 0.9), (2, 3, "parent", 0.8), (3, 2, "child", 0.7), (0, 1, "teacher", 0.6)]
    pairs += [(3, 2, "teacher", 0.5), (0, 1, "met", 0.4), (3, 2, "met", 0.3)]
    pairs += [(0, 4, "place of birth", 0.9), (2, 5, "place of birth", 0.8), (1, 4, "place of birth", 0.2)]
    limits = {name: {"directions": 1} for name in ("parent", "child", "teacher")}
    limits["place of birth"] = {"max_per_head": 1}
    assert texts(document(words, pairs, limits=limits)) == [
        ("Bo", "parent", "Ann", 1),
        ("Ann", "place of birth", "Rome", 1),
        ("Ann", "teacher", "Bo", 1),
        ("Ann", "met", "Bo", 1),
        ("Bo", "met", "Ann", 1),
        ("Bo", "place of birth", "Rome", 1),
    ]
    # Annotated documents have no limits, and lose nothing.
    assert len(make_facts(document(words, pairs))) == 9


def test_a_symmetric_fact_counts_for_both_entities() -> None:
    pairs: Pairs = [(0, 1, "spouse", 0.9), (2, 0, "spouse", 0.8), (2, 3, "spouse", 0.7)]
    found = texts(document(["Ann", "Bo", "Cy", "Di"], pairs, limits={"spouse": {"max_per_head": 1}}))
    assert found == [("Ann", "spouse", "Bo", 1), ("Cy", "spouse", "Di", 1)]


def test_the_limits_of_an_inverse_label_count_too() -> None:
    words = ["Ann", "Bo", "Cy", "Di"]
    pairs: Pairs = [(0, 1, "parent", 0.9), (0, 2, "parent", 0.8), (0, 3, "parent", 0.7)]
    assert len(make_facts(document(words, pairs, limits={"child": {"max_per_tail": 2}}))) == 2


def test_without_a_schema_every_direction_is_a_fact() -> None:
    made = document(["Ann", "Bo"], [(1, 0, "spouse", 0.8), (0, 1, "spouse", 0.6)], inverse_of={})
    assert texts(made) == [("Bo", "spouse", "Ann", 1), ("Ann", "spouse", "Bo", 1)]


@given(st.lists(st.floats(0, 1), min_size=1))
def test_the_combined_score_is_a_probability_that_no_repetition_raises(scores: list[float]) -> None:
    assert min(scores) <= combine_scores(scores) <= max(scores)
    assert combine_scores(scores * 2) == combine_scores(scores)


@given(documents())
def test_every_relation_supports_one_fact(docs: list[RelationDocument]) -> None:
    for made in docs:
        facts = make_facts(made)
        relations = [relation for fact in facts for relation in fact.relations]
        entities = find_entities(made)
        keys = [(entities[one.head.key].key, entities[one.tail.key].key) for one in distinct_relations(made)]
        assert len(relations) == len(set(relations)) == sum(head != tail for head, tail in keys)
        assert {one.head.key for one in relations} | {one.tail.key for one in relations} <= find_entities(made).keys()
        assert len({(fact.head.key, fact.label, fact.tail.key) for fact in facts}) == len(facts)
        assert [fact.score for fact in facts] == sorted((fact.score for fact in facts), reverse=True)
    assert sum(edge.count for edge in merge_edges(docs)) == sum(
        len(fact_edge.sources) for fact_edge in fact_edges(docs)
    )


# -- documents of spaCy ------------------------------------------------------------------------------

TEXT = "Ann Lee was born in Rome. She married Bo Lee. Ann Lee left."


@pytest.fixture
def doc() -> Doc:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp(TEXT)
    ann, rome, she, bo, again = (
        doc.char_span(start, end, label)
        for start, end, label in ((0, 7, "PER"), (20, 24, "LOC"), (26, 29, "PER"), (38, 44, "PER"), (46, 53, "PER"))
    )
    doc.ents = [ann, rome, she, bo, again]
    doc.spans[f"{CLUSTERS}_1"] = [ann, she]
    doc._.relations = [(ann, rome, "born in", 0.9), (she, bo, "spouse", 0.8), (bo, again, "spouse", 0.4)]
    write_label_properties(doc, INVERSES, {})
    set_provenance(doc, "first", "")
    return doc


def test_a_doc_has_facts_with_spans(doc: Doc) -> None:
    born, spouse = doc._.facts
    assert isinstance(born, Fact) and str(born) == "Ann Lee – born in – Rome (0.90)"
    assert born.head.mentions == (doc.ents[0], doc.ents[2], doc.ents[4])
    assert born.relations[0] == doc._.relations[0] and born.relations[0].head.sent.text == born.sentences[0]
    assert [(one.head.text, one.tail.text) for one in spouse.relations] == [("She", "Bo Lee"), ("Ann Lee", "Bo Lee")]
    assert spouse.sentences == ("She married Bo Lee.", "She married Bo Lee. Ann Lee left.")
    assert all(isinstance(one, Span) for fact in doc._.facts for one in (*fact.head.mentions, *fact.tail.mentions))


def test_facts_of_a_file_are_those_of_the_doc(doc: Doc) -> None:
    expected = [fact.to_dict() for fact in doc._.facts]
    read = RelationDocument.from_dict(json.loads(json.dumps(RelationDocument.from_doc(doc).to_dict())))
    assert [fact.to_dict() for fact in make_facts(read)] == expected
    assert [fact.to_dict() for fact in facts_of(read.to_doc(spacy.blank("en")))] == expected
    packed = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (copy,) = DocBin().from_bytes(packed).get_docs(doc.vocab)
    assert [fact.to_dict() for fact in copy._.facts] == expected
    assert expected[0]["head"]["mentions"][1] == {"start": 26, "end": 29, "text": "She", "type": "PER"}


def test_relations_in_another_attribute_have_label_properties_of_their_own(doc: Doc) -> None:
    install_extensions("more_relations")
    ann, _, _, bo, _ = doc.ents
    doc._.more_relations = [(ann, bo, "spouse", 0.9), (bo, ann, "spouse", 0.8), (ann, bo, "knows", 0.7)]
    write_label_properties(doc, {"knows": "knows"}, {}, attr="more_relations")
    for one in (doc, span_as_doc(doc[:]), join_docs([doc])):
        assert [(fact.label, fact.symmetric) for fact in one._.facts] == [("born in", False), ("spouse", True)]
        facts = [(fact.label, fact.symmetric) for fact in facts_of(one, "more_relations")]
        assert facts == [("spouse", False), ("spouse", False), ("knows", True)]


def test_split_and_joined_docs_keep_symmetric_labels(doc: Doc) -> None:
    assert [fact.symmetric for fact in span_as_doc(doc[7:12])._.facts] == [True]
    joined = join_docs([doc, doc])
    assert [(str(fact.head), fact.label, len(fact.relations)) for fact in joined._.facts] == [
        ("Ann Lee", "born in", 2),
        ("Ann Lee", "spouse", 4),
    ]
    other = Doc(doc.vocab, words=["Bo", "and", "she"])
    other.ents = [Span(other, 0, 1, "PER"), Span(other, 2, 3, "PER")]
    other.spans["coref_clusters_1"] = list(other.ents)
    assert [cluster.name for cluster in find_clusters(join_docs([doc, other]))] == ["Ann Lee", "Bo"]


def test_a_component_stores_the_symmetric_labels(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    labels = [{"name": "sibling", "symmetric": True}, {"name": "boss", "inverse": "staff"}, {"name": "staff"}]
    schema = {"labels": labels, "negative_label": None}
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "schema": schema, "threshold": 0.0})
    doc = nlp("Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw.")
    assert RelationDocument.from_doc(doc).inverse_of.items() <= {"sibling": "sibling", "staff": "boss"}.items()
    assert doc._.relations and {fact.label for fact in doc._.facts} <= {"sibling", "boss"}
    # A second component has other labels.
    nlp.add_pipe("slm_relations", name="other", config={"model": tiny_model, "labels": ["knows"], "attr": "others"})
    both = nlp(doc.text)
    assert [fact.to_dict() for fact in both._.facts] == [fact.to_dict() for fact in doc._.facts]


def test_facts_are_registered_on_import_unless_the_name_is_taken() -> None:
    code = (
        "import warnings; from spacy.tokens import Doc; Doc.set_extension('facts', default=1); import spacy_slmre; "
        "assert Doc.get_extension('facts')[0] == 1 and spacy_slmre.facts_of"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Doc.has_extension("facts")


# -- the schema --------------------------------------------------------------------------------------


def test_a_schema_knows_which_labels_are_inverse_whoever_declares_it() -> None:
    labels: list[dict[str, Any]] = [{"name": "parent"}, {"name": "child", "inverse": "parent"}]
    labels += [{"name": "spouse", "symmetric": True}, {"name": "boss", "inverse": "unknown"}]
    assert LabelSchema.from_dict({"labels": labels}).inverse_of == {"spouse": "spouse", "child": "parent"}
    # A child's other side is its father or its mother, so neither can be concluded.
    labels = [{"name": name, "inverse": "child"} for name in ("father", "mother")] + [{"name": "child"}]
    assert LabelSchema.from_dict({"labels": labels}).inverse_of == {}
    general = LabelSchema.general().inverse_of
    assert general["child"] == "parent" and "parent" not in general and general["sibling"] == "sibling"

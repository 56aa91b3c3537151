"""Each reader on a few invented sentences in the format of its benchmark."""

from __future__ import annotations

import json

import pytest

from spacy_slmre.coreference import MENTIONS
from spacy_slmre.corpus.gold_docs import make_doc
from spacy_slmre.corpus.records import Record, Reject
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.study.benchmarks.card import get_benchmark


@pytest.fixture
def read(nlp):
    def read(name, source, split="dev", **settings):
        """Documents as (head, label, tail) lists, and all rejects."""
        card = get_benchmark(name)
        docs, rejects = [], []
        for item in card.read(source, split, **settings):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                doc, lost = make_doc(nlp, item, card, split)
                docs.append(doc)
                rejects += lost
        return docs, rejects

    return read


def triples(doc):
    return [(r.head.text, r.label, r.tail.text) for r in doc._.relation_pairs]


MARKED = """1\t"The <e1>storm</e1> caused <e2>floods</e2>."
Cause-Effect(e1,e2)
Comment: easy

2\t"The <e1>cup</e1> is near the <e2>door</e2>."
Other
Comment:

"""


@pytest.mark.parametrize("change", [str, lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_semeval_is_read(read, write, change):
    docs, rejects = read("semeval2010_task8", write("s.txt", change(MARKED)))
    assert not rejects
    assert [doc.text for doc in docs] == ["The storm caused floods.", "The cup is near the door."]
    assert triples(docs[0]) == [("storm", "Cause-Effect(e1,e2)", "floods")]
    assert triples(docs[1]) == [("cup", "Other", "door")] and docs[1]._.relations == ()
    assert docs[0].user_data["slmre.id"] == "dev-1" and docs[0].ents[0].label_ == "ENTITY"


def test_malformed_semeval_records_are_rejects(read, write):
    text = '1\t"A <e1>b</e1> c."\nOther\n\n2\t"A <e1>b</e1> <e2>c</e2>."\n'
    text += '3\t"<e1>A</e1> <e2> </e2>."\nOther\nstray\n'
    docs, rejects = read("semeval2010_task8", write("s.txt", text))
    assert not [triple for doc in docs for triple in triples(doc)]
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (1, "malformed record"),
        (4, "no label"),
        (5, "empty argument"),
        (7, "unexpected line"),
    ]
    assert "the mark </e2> is missing" in rejects[0].detail


def test_kbp37_is_read(read, write):
    text = '9\t" <e1> Ann Lee </e1> joined <e2> Acme </e2> in May . "\nper:employee_of(e1,e2)\n\n\n'
    (doc,), rejects = read("kbp37", write("k.txt", text))
    assert not rejects and triples(doc) == [("Ann Lee", "per:employee_of(e1,e2)", "Acme")]


CONLL = [
    {
        "tokens": ["Ann", "Lee", "of", "Oslo", "works", "for", "Acme"],
        "entities": [[0, 2, "Peop"], [3, 4, "Loc"], [6, 7, "Org"]],
        "relations": [[0, 2, 3, 4, "Live_In"], [0, 2, 6, 7, "Work_For"]],
    }
]


def test_conll04_is_read(read, write):
    (doc,), rejects = read("conll04", write("c.json", json.dumps(CONLL)))
    assert not rejects
    assert triples(doc) == [("Ann Lee", "Live_In", "Oslo"), ("Ann Lee", "Work_For", "Acme")]
    assert [ent.label_ for ent in doc.ents] == ["Peop", "Loc", "Org"]


def test_conll04_pairs_adds_negatives(read, write):
    (doc,), _ = read("conll04_pairs", write("c.json", json.dumps(CONLL)))
    assert len(doc._.relation_pairs) == 6 and len(doc._.relations) == 2
    (doc,), _ = read("conll04_pairs", write("c.json", json.dumps(CONLL)), negatives=1.0, seed=3)
    assert len(doc._.relation_pairs) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"entities": [[0, 9, "Peop"]]},
        {"relations": [[0, 2, 3, 3, "Live_In"]]},
        {"relations": [[0, 2, 3]]},
        {"tokens": []},
        {"tokens": None},
        {"entities": None},
    ],
)
def test_a_malformed_record_is_a_reject(read, write, change):
    docs, rejects = read("conll04", write("c.json", json.dumps([CONLL[0] | change, CONLL[0]])))
    assert len(docs) == 1
    assert [(reject.reason, reject.line, reject.id) for reject in rejects] == [("malformed record", 1, "dev-0")]


def test_nyt_is_read(read, write):
    row = {
        "text": "Ann Lee of Oslo , Norway , saw Oslo again .",
        "triple_list": [
            ["Norway", "/location/country/capital", "Oslo"],
            ["Norway", "/location/location/contains", "Oslo"],
            ["Norway", "/location/location/contains", "Oslo"],
            ["Norway", "/location/location/contains", "Ålesund"],
            ["Norway", "/location/location/unknown", "Oslo"],
        ],
    }
    (doc,), rejects = read("nyt", write("n.json", json.dumps([row])))
    labels = [label for _, label, _ in triples(doc)]
    assert labels == ["/location/country/capital", "/location/location/contains", "/location/location/contains"]
    assert {r.tail.start_char for r in doc._.relation_pairs} == {11}
    assert [reject.reason for reject in rejects] == ["argument not in the text", "unknown label"]
    assert "Ålesund" in rejects[0].detail


def test_gids_is_read(read, write):
    label = "/people/person/place_of_birth"
    row = f"/m/1\t/m/2\tAnn_B._Lee\tSouth_Bend,_Indiana\t{label}\t"
    row += "Ann_B._Lee was born in South_Bend,_Indiana . ###END### \n"
    short = "/m/1\t/m/2\tAnn\n"
    lost = f"/m/1\t/m/2\tBo\tOslo\t{label}\tAnn is in Oslo . ###END###\n"
    (doc,), rejects = read("gids", write("g.tsv", row + "\n" + short + lost))
    assert doc.text == "Ann B. Lee was born in South Bend, Indiana ."
    assert triples(doc) == [("Ann B. Lee", label, "South Bend, Indiana")]
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (3, "malformed record"),
        (4, "argument not in the text"),
    ]


def test_webnlg_is_read(read, write):
    row = {
        "tokens": ["A.C.", "Oslo", "plays", "in", "Oslo"],
        "spo_list": [["A.C. Oslo", "ground", "Oslo"]],
        "spo_details": [[0, 2, "None-label", "ground", 1, 2, "None-label"]],
    }
    (doc,), rejects = read("webnlg", write("w.json", json.dumps([row])))
    assert not rejects and triples(doc) == [("A.C. Oslo", "ground", "Oslo")]
    assert [ent.text for ent in doc.ents] == ["A.C. Oslo"] and len(doc.spans[MENTIONS]) == 2


def test_crossre_is_read(read, write):
    row = {
        "doc_key": "literature-dev-9",
        "sentence": ["Ann", "Lee", "wrote", "Dust", "in", "Oslo"],
        "ner": [[0, 1, "writer"], [3, 3, "book"], [5, 5, "location"]],
        "relations": [[3, 3, 0, 1, "artifact", "", False, False], [3, 3, 0, 1, "role", "x", False, False]],
    }
    (doc,), rejects = read("crossre", write("c.json", json.dumps(row)))
    assert not rejects and doc.user_data["slmre.id"] == "literature-dev-9"
    assert triples(doc) == [("Dust", "artifact", "Ann Lee"), ("Dust", "role", "Ann Lee")]
    (doc,), _ = read("crossre", write("c.json", json.dumps(row)), negatives=-1.0)
    assert [label for _, label, _ in triples(doc)].count("no_relation") == 5


DOCRED = {
    "title": "Ann Lee",
    "sents": [
        ["Ann", "Lee", "is", "here", "."],
        ["Ann", "left", "Oslo", "for", "Oslo", "."],
        ["Oslo", "is", "in", "Norway"],
    ],
    "vertexSet": [
        [
            {"name": "Ann Lee", "pos": [0, 2], "sent_id": 0, "type": "PER"},
            {"name": "Ann", "pos": [0, 1], "sent_id": 1, "type": "PER"},
        ],
        [
            {"name": "Oslo", "pos": [2, 3], "sent_id": 1, "type": "LOC"},
            {"name": "Oslo", "pos": [4, 5], "sent_id": 1, "type": "LOC"},
            {"name": "Oslo", "pos": [0, 1], "sent_id": 2, "type": "LOC"},
        ],
        [{"name": "Norway", "pos": [3, 4], "sent_id": 2, "type": "LOC"}],
    ],
    "labels": [
        {"h": 0, "t": 1, "r": "P551", "evidence": []},
        {"h": 0, "t": 1, "r": "P19", "evidence": [1]},
        {"h": 1, "t": 2, "r": "P17", "evidence": [2]},
        {"h": 0, "t": 2, "r": "P27", "evidence": [0, 2]},
    ],
}


def test_re_docred_is_read(read, write):
    docs, rejects = read("re_docred", write("r.json", json.dumps([DOCRED])), negatives=0.0)
    assert [doc.text for doc in docs] == ["Ann left Oslo for Oslo .", "Oslo is in Norway"]
    assert triples(docs[0]) == [("Ann", "P551", "Oslo"), ("Ann", "P19", "Oslo")]
    # The closest mention.
    assert {r.tail.start for r in docs[0]._.relation_pairs} == {2}
    assert len(docs[0].ents) == 3
    assert triples(docs[1]) == [("Oslo", "P17", "Norway")]
    assert [reject.reason for reject in rejects] == ["entities share no sentence"]
    assert "(0, P27, 2)" in rejects[0].detail


def test_re_docred_negatives_are_sampled_with_a_seed(read, write):
    path = write("r.json", json.dumps([DOCRED]))
    docs, _ = read("re_docred", path, negatives=-1.0)
    negatives = [triple for doc in docs for triple in triples(doc) if triple[1] == "no_relation"]
    assert negatives == [("Oslo", "no_relation", "Ann"), ("Norway", "no_relation", "Oslo")]
    one = [triples(doc) for doc in read("re_docred", path, negatives=0.4, seed=5)[0]]
    assert sum(label == "no_relation" for doc in one for _, label, _ in doc) == 1
    assert one == [triples(doc) for doc in read("re_docred", path, negatives=0.4, seed=5)[0]]


def test_re_docred_is_read_as_whole_documents(read, write):
    (doc,), rejects = read("re_docred", write("r.json", json.dumps([DOCRED])), unit="document")
    assert not rejects and doc.text == " ".join(word for sentence in DOCRED["sents"] for word in sentence)
    assert [sent.text for sent in doc.sents] == [" ".join(sentence) for sentence in DOCRED["sents"]]
    assert {ent.kb_id_ for ent in doc.ents} == {f"{doc.user_data['slmre.id']}#{number}" for number in range(3)}
    # Every label is a fact, also between entities that share no sentence, with the closest mentions.
    expected = {("Ann Lee", "P551", "Oslo"), ("Ann Lee", "P19", "Oslo"), ("Oslo", "P17", "Norway")}
    assert {(str(one.head), one.label, str(one.tail)) for one in doc._.facts} == {
        *expected,
        ("Ann Lee", "P27", "Norway"),
    }
    assert {(one.head.start, one.tail.start) for one in doc._.relations if one.label != "P17"} == {(5, 7), (5, 14)}
    with pytest.raises(CorpusError, match="Use one of sentence, document"):
        read("re_docred", write("r.json", json.dumps([DOCRED])), unit="page")


def test_rebel_is_read(read, write):
    text = "Oslo is a city. It was founded in 1048 and Oslo is in Norway."
    entity = {"uri": "Q1", "annotator": "Me"}
    triple = {
        "subject": {**entity, "surfaceform": "Oslo", "boundaries": [45, 49]},
        "predicate": {"uri": "P17", "surfaceform": "country"},
        "object": {**entity, "surfaceform": "Norway", "boundaries": [54, 60]},
    }
    date = {"uri": "1048", "annotator": "Date_Linker", "surfaceform": "1048", "boundaries": [34, 38]}
    inception = {"subject": triple["subject"], "predicate": {"uri": "P571", "surfaceform": "inception"}, "object": date}
    lost = {**triple, "object": {**entity, "surfaceform": "Sweden", "boundaries": [0, 6]}}
    row = {"docid": "12", "text": text, "triples": [triple, inception, lost]}
    (doc,), rejects = read("rebel", write("r.jsonl", json.dumps(row)))
    assert triples(doc) == [("Oslo", "P17", "Norway"), ("Oslo", "P571", "1048")]
    # The span of the source is two characters off, so the nearest occurrence is taken.
    assert doc._.relation_pairs[0].head.start_char == 43
    assert [ent.label_ for ent in doc.ents] == ["DATE", "ENTITY", "ENTITY"]
    assert [reject.reason for reject in rejects] == ["argument not in the text"]


TACRED = [
    {
        "id": f"e{number}",
        "relation": label,
        "token": ["Ann", "Lee", ",", "a", "nurse", "."],
        "subj_start": 0,
        "subj_end": 1,
        "obj_start": 4,
        "obj_end": 4,
        "subj_type": "PERSON",
        "obj_type": "TITLE",
    }
    for number, label in enumerate(["per:title", "no_relation", "per:title"])
]


def test_tacred_is_read(read, write):
    docs, rejects = read("tacred", write("t.json", json.dumps(TACRED)))
    assert not rejects and len(docs) == 3
    assert triples(docs[0]) == [("Ann Lee", "per:title", "nurse")]
    assert [ent.label_ for ent in docs[0].ents] == ["PERSON", "TITLE"]
    assert docs[1]._.relations == () and docs[1].user_data["slmre.id"] == "e1"


@pytest.mark.parametrize(
    "patch", [{"e1": "per:title"}, {"e1": {"relation": "per:title"}}, [{"id": "e1", "relation": "per:title"}]]
)
def test_tacred_takes_corrected_labels(read, write, patch):
    docs, _ = read("tacred", write("t.json", json.dumps(TACRED)), patch=write("p.json", json.dumps(patch)))
    assert [triples(doc)[0][1] for doc in docs] == ["per:title"] * 3


def test_retacred_rejects_instances_without_a_new_label(read, write):
    patch = write("p.json", json.dumps({"e0": "per:identity", "e2": "no_relation"}))
    docs, rejects = read("retacred", write("t.json", json.dumps(TACRED)), patch=patch)
    assert [triples(doc)[0][1] for doc in docs] == ["per:identity", "no_relation"]
    assert [(reject.id, reject.reason) for reject in rejects] == [("e1", "not in the patch")]


@pytest.mark.parametrize("patch", ["{", "3", '{"e1": 4}', '[{"relation": "x"}]'])
def test_an_invalid_label_patch_is_an_error(read, write, patch):
    with pytest.raises(CorpusError, match="label patch"):
        read("tacred", write("t.json", json.dumps(TACRED)), patch=write("p.json", patch))


def test_biographical_is_read(read, write):
    marked = "relation\tsentence\nbirthdate\t<e1>Ann Lee</e1> ( born <e2>1 May 1900</e2> ) sang .\n"
    (doc,), rejects = read("biographical", write("b.tsv", marked))
    assert not rejects and triples(doc) == [("Ann Lee", "birthdate", "1 May 1900")]
    row = {
        "text": "Ann Lee was a nurse.",
        "entity1": "Ann Lee",
        "entity2": "nurse",
        "entity1Type": "PER",
        "entity2Type": "OCC",
        "relation": "Occupation",
    }
    (doc,), rejects = read("biographical", write("b.jsonl", json.dumps(row)))
    assert triples(doc) == [("Ann Lee", "occupation", "nurse")] and doc.ents[1].label_ == "OCC"
    with pytest.raises(CorpusError, match=r"missing columns: sentence\. Available columns: relation, words"):
        read("biographical", write("c.jsonl", '{"relation": "x", "words": 1}'))


ARF = [
    {"entity1": "Ned", "entity2": "the old  Mill", "entity1Type": "PER", "entity2Type": "FAC", "relation": "lives_in"},
    {"entity1": "Moll", "entity2": "Ned", "entity1Type": "PER", "entity2Type": "PER", "relation": "Mother of"},
    {"entity1": "Moll", "entity2": "Ned", "entity1Type": "PER", "entity2Type": "PER", "relation": "cooks_for"},
    {"entity1": "Moll", "entity2": "Tom", "entity1Type": "PER", "entity2Type": "PER", "relation": "child_of"},
    {"entity1": "Moll"},
]


@pytest.mark.parametrize("dumps", [json.dumps, repr])
def test_pg_fiction_is_read(read, write, dumps):
    row = {"book_id": 5, "chunk_id": 8, "chunk": "Ned lived in the\nold mill. Moll called.", "relations": dumps(ARF)}
    (doc,), rejects = read("pg_fiction", write("a.jsonl", json.dumps(row)))
    assert triples(doc) == [("Ned", "lives_in", "the\nold mill"), ("Moll", "parent_mother_of", "Ned")]
    assert doc.user_data["slmre.id"] == "5-8"
    assert [reject.reason for reject in rejects] == ["argument not in the text", "malformed relation", "unknown label"]


def test_the_pg_fiction_mapping_can_be_extended(read, write):
    row = {"chunk": "Moll cooks for Ned.", "relations": [ARF[2]]}
    path = write("a.jsonl", json.dumps(row))
    (doc,), rejects = read("pg_fiction", path, mapping=write("m.json", '{"cooks for": "companion_of"}'))
    assert not rejects and triples(doc) == [("Moll", "companion_of", "Ned")]
    with pytest.raises(CorpusError, match="leads to unknown canonical relations: cook"):
        read("pg_fiction", path, mapping=write("m.json", '{"cooks for": "cook"}'))
    with pytest.raises(CorpusError, match="is not a JSON object"):
        read("pg_fiction", path, mapping=write("m.json", "cooks for"))


@pytest.mark.parametrize("relations", ["[{", "3", 7])
def test_unreadable_pg_fiction_relations_are_rejects(read, write, relations):
    row = {"chunk": "Moll cooks for Ned.", "relations": relations}
    docs, rejects = read("pg_fiction", write("a.jsonl", json.dumps(row)))
    assert not docs and [reject.reason for reject in rejects] == ["malformed record"]


def test_demo_is_read(read, write):
    text = "# about\n[Ann|PER] and [Bo|PER] of [Oslo|LOC].\n  1 spouse_of 2\n  1 lives_in 3\n"
    text += "  4 x 1\n  1 and 2 too\n\nNone.\n"
    docs, rejects = read("demo", write("d.txt", text))
    assert [doc.text for doc in docs] == ["Ann and Bo of Oslo.", "None."]
    assert triples(docs[0]) == [
        ("Ann", "spouse_of", "Bo"),
        ("Ann", "lives_in", "Oslo"),
        ("Bo", "spouse_of", "Ann"),
        ("Bo", "no_relation", "Oslo"),
        ("Oslo", "no_relation", "Ann"),
        ("Oslo", "no_relation", "Bo"),
    ]
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (5, "malformed relation"),
        (6, "malformed relation"),
    ]


def test_records_have_their_line(write):
    records = list(get_benchmark("conll04").read(write("c.json", "[\n" + json.dumps(CONLL[0]) + "\n]"), "dev"))
    assert [(type(record), record.line) for record in records] == [(Record, 2)]

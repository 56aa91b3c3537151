from __future__ import annotations

import pytest

from spacy_slmre.coreference import CLUSTERS
from spacy_slmre.corpus.sources import CorpusError
from tests.corpus.annotations.conftest import entities

NER = "de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity"
HEADER = f"#FORMAT=WebAnno TSV 3.3\n#T_SP={NER}|identifier|value\n#T_RL=custom.Relation|label|BT_{NER}\n\n\n"
BODY = """#Text=😀 Ann Lee of Oslo
1-1\t0-2\t😀\t_\t_\t_\t_\t
1-2\t3-6\tAnn\t*[1]\tPER[1]\t_\t_\t
1-3\t7-10\tLee\t*[1]\tPER[1]\t_\t_\t
1-4\t11-13\tof\t_\t_\t_\t_\t
1-5\t14-18\tOslo\t*\tLOC\tlives in\t1-2[1_0]\t

#Text=Bo left .
2-1\t20-22\tBo\t*\tPER\tknows\t1-2[1_0]\t
2-2\t23-27\tleft\t_\t_\t_\t_\t
2-3\t28-29\t.\t_\t_\t_\t_\t
"""


@pytest.fixture
def export(write, converted):
    return lambda content, **settings: converted(write("doc.tsv", content), **settings)


def test_entities_relations_and_sentences_are_read(export):
    found = export(HEADER + BODY)
    (doc,) = found.docs
    assert found.format == "webanno_tsv" and not found.rejects
    # Offsets count UTF-16 code units, and two spaces separate the sentences.
    assert doc.text == "😀 Ann Lee of Oslo  Bo left ."
    assert entities(doc) == [("Ann Lee", "PER"), ("Oslo", "LOC"), ("Bo", "PER")]
    assert found.relations() == [("Ann Lee", "lives in", "Oslo"), ("Ann Lee", "knows", "Bo")]
    assert [sent.text for sent in doc.sents] == ["😀 Ann Lee of Oslo  ", "Bo left ."]
    assert doc.user_data["slmre.id"] == "doc"


def test_the_last_tab_of_rows_is_optional(export):
    assert len(export(HEADER + BODY.replace("\t\n", "\n")).relations()) == 2


def test_a_different_number_of_sources_and_labels_is_an_error(export):
    with pytest.raises(CorpusError, match=r"doc\.tsv:14: '1-2\[1_0\]\|1-5' and 'knows' differ in their number"):
        export(HEADER + BODY.replace("knows\t1-2[1_0]", "knows\t1-2[1_0]|1-5"))


def test_stacked_annotations_are_told_apart_by_their_numbers(export):
    header = "#FORMAT=WebAnno TSV 3.3\n#T_SP=custom.Span|label\n#T_RL=custom.Relation|label|BT_custom.Span\n\n\n"
    body = (
        "#Text=York University won\n"
        "1-1\t0-4\tYork\tORG[1]|LOC[2]\t_\t_\t\n"
        "1-2\t5-15\tUniversity\tORG[1]\tlies in|near\t1-1[2_1]|1-1[2_1]\t\n"
        "1-3\t16-19\twon\tACT\twho\t1-1[1_0]\t\n"
    )
    found = export(header + body)
    assert found.relations() == [
        ("York", "lies in", "York University"),
        ("York", "near", "York University"),
        ("York University", "who", "won"),
    ]
    assert not found.rejects
    # Without numbers, "York" could be either annotation.
    found = export(header + body.replace("1-1[2_1]|1-1[2_1]", "1-1|1-1[2_1]"))
    assert found.rejects == {"relation of a missing entity": 1} and len(found.relations()) == 2


def test_relations_may_connect_tokens_and_parts_of_tokens(export):
    token = "de.tudarmstadt.ukp.dkpro.core.api.segmentation.type.Token"
    header = f"#FORMAT=WebAnno TSV 3.2\n#T_RL=webanno.custom.Causes|BT_{token}\n\n\n"
    found = export(
        f"{header}#Text=Rain brings floods\n1-1\t0-4\tRain\t_\n1-2\t5-11\tbrings\t_\n1-3\t12-18\tfloods\t1-1\n"
    )
    # A layer without features has its name as label.
    assert found.relations() == [("Rain", "Causes", "floods")]
    header = "#FORMAT=WebAnno TSV 3.2\n#T_SP=custom.Span|label\n#T_RL=custom.Relation|label|BT_custom.Span\n\n\n"
    rows = "1-1\t0-10\tAnn-driven\t_\t_\t_\n1-1.1\t0-3\tAnn\tPER\t_\t_\n1-2\t11-14\tcar\tCAR\tdrives\t1-1.1\n"
    assert export(f"{header}#Text=Ann-driven car\n{rows}").relations() == [("Ann", "drives", "car")]


def test_escaped_characters_are_restored(export):
    header = "#FORMAT=WebAnno TSV 3.3\n#T_SP=custom.Span|label\n#T_RL=custom.Relation|label|BT_custom.Span\n\n\n"
    body = (
        "#Text=A\\[1\\] is\n#Text=b\\_c .\n"
        "1-1\t0-4\tA\\[1\\]\tX\\|Y\t_\t_\n1-2\t5-7\tis\t_\t_\t_\n1-3\t8-11\tb\\_c\tX\\_Y\ta\\->b\t1-1\n1-4\t12-13\t.\t_\t_\t_\n"
    )
    found = export(header + body)
    assert found.docs[0].text == "A[1] is\nb_c ."
    assert entities(found.docs[0]) == [("A[1]", "X|Y"), ("b_c", "X_Y")]
    assert found.relations() == [("A[1]", "a->b", "b_c")]


@pytest.mark.parametrize("link_first", [False, True])
def test_chains_are_coreference_clusters(export, link_first):
    layer = "de.tudarmstadt.ukp.dkpro.core.api.coref.type.CoreferenceLink"
    header = f"#FORMAT=WebAnno TSV 3.3\n#T_CH={layer}|referenceType|referenceRelation\n\n\n"
    rows = [
        "1-1\t0-3\tAnn\tnam[1]\t*->1-1",
        "1-2\t4-7\tLee\tnam[1]\t*->1-1",
        "1-3\t8-13\tlikes\t_\t_",
        "1-4\t14-17\ther\tpr[1]|pr[2]\t*->1-2|*->2-1",
        "1-5\t18-22\tself\tpr[2]\t*->2-2",
    ]
    if link_first:
        header = header.replace("referenceType|referenceRelation", "referenceRelation|referenceType")
        rows = ["\t".join([*cells[:3], *cells[:2:-1]]) for cells in (row.split("\t") for row in rows)]
    (doc,) = export(f"{header}#Text=Ann Lee likes her self\n" + "\n".join(rows) + "\n").docs
    clusters = [[span.text for span in doc.spans[f"{CLUSTERS}_{number}"]] for number in (1, 2)]
    assert clusters == [["Ann Lee", "her"], ["her", "self"]]
    assert doc.ents == ()


def test_syntax_is_not_read_as_relations_unless_it_is_chosen(export):
    pos = "de.tudarmstadt.ukp.dkpro.core.api.lexmorph.type.pos.POS"
    dependency = "de.tudarmstadt.ukp.dkpro.core.api.syntax.type.dependency.Dependency"
    header = f"#FORMAT=WebAnno TSV 3.3\n#T_SP={pos}|PosValue\n#T_RL={dependency}|DependencyType|BT_{pos}\n\n\n"
    body = "#Text=Ann ran\n1-1\t0-3\tAnn\tNNP\tnsubj\t1-2\n1-2\t4-7\tran\tVBD\t_\t_\n"
    found = export(header + body)
    assert found.relations() == [] and found.docs[0].ents == ()
    assert export(header + body, relations="Dependency").relations() == [("ran", "nsubj", "Ann")]
    with pytest.raises(
        CorpusError, match=r"doc\.tsv: there is no relation layer Causes\. Relation layers: .*Dependency"
    ):
        export(header + body, relations="Causes")


def test_relations_without_a_label_are_rejected(export):
    found = export(HEADER + BODY.replace("knows", "*"))
    assert found.rejects == {"relation without a label": 1} and len(found.relations()) == 1


def test_slots_are_counted(export):
    slot = "ROLE_custom.Event:who_custom.EventWhoLink|custom.Span"
    header = f"#FORMAT=WebAnno TSV 3.3\n#T_SP=custom.Event|{slot}|kind\n#T_SP=custom.Span|label\n"
    header += "#T_RL=custom.Relation|label|BT_custom.Span\n\n\n"
    body = """#Text=Ann sold Bo tea
1-1\t0-3\tAnn\t_\t_\t_\tPER\t_\t_\t
1-2\t4-8\tsold\tseller;buyer\t1-1;1-3\tsale\t_\t_\t_\t
1-3\t9-11\tBo\t_\t_\t_\tPER\tknows\t1-1[0_0]\t
1-4\t12-15\ttea\t_\t*\tthing\t_\t_\t_\t
"""
    found = export(header + body)
    assert found.rejects == {"slot of an annotation": 2} and found.relations() == [("Ann", "knows", "Bo")]
    assert entities(found.docs[0]) == [("Ann", "PER"), ("Bo", "PER")]
    events = body.replace("knows\t1-1[0_0]", "_\t_").replace("thing\t_\t_\t_", "thing\t_\tof\t1-2[0_0]")
    with_events = export(header.replace("BT_custom.Span", "BT_custom.Event") + events)
    assert with_events.relations() == [("sold", "of", "tea")]
    assert entities(with_events.docs[0]) == [("sold", "sale"), ("tea", "thing")], "roles are no types"
    without_roles = export(header + body.replace("seller;buyer\t1-1;1-3", "*\t1-3[2]"))
    assert without_roles.rejects == {"slot of an annotation": 1}
    escaped = export(header + body.replace("seller;buyer\t1-1;1-3", "seller\\; agent[1]\t1-1[2]"))
    assert escaped.rejects == {"slot of an annotation": 1}


def test_a_folder_is_read(tmp_path, converted):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "ann.tsv").write_text(HEADER + BODY, encoding="utf-8")
    found = converted(tmp_path / "in")
    assert [doc.user_data["slmre.id"] for doc in found.docs] == ["a/ann", "b/ann"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("14-18\tOslo", "15-19\tOslo", r"doc\.tsv:11: the token 'Oslo' is not at 15-19 of the text"),
        ("\tLOC\tlives in\t", "\tLOC\t", r"doc\.tsv:11: expected number, offsets, token and 4 columns"),
        ("1-2[1_0]", "1-9[1_0]", r"doc\.tsv:11: '1-9\[1_0\]' is not the row of another annotation"),
        ("2-1\t20-22", "2-1\t2-4", r"doc\.tsv:14: the sentence begins inside of the one before it"),
        (f"|BT_{NER}", "", r"doc\.tsv:3: the relation layer custom\.Relation does not name the layer"),
    ],
)
def test_malformed_files_are_errors_with_their_line(export, old, new, message):
    content = (HEADER + BODY).replace(old, new)
    with pytest.raises(CorpusError, match=message):
        export(content)


def test_other_tables_are_no_webanno_tsv(write, converted):
    with pytest.raises(CorpusError, match=r"x\.tsv:1: the file does not begin with #FORMAT=WebAnno TSV 3"):
        converted(write("x.tsv", "a\tb\n1\t2\n"), "webanno_tsv")

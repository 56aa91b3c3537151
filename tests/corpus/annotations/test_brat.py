from __future__ import annotations

import pytest

from spacy_slmre.coreference import CLUSTERS
from spacy_slmre.corpus.sources import CorpusError
from tests.corpus.annotations.conftest import entities

TEXT = "Ann met Bo in Oslo.\nShe likes New and Old York.\n"
ANN = "\n".join(
    [
        "R1\tmet Arg1:T1 Arg2:T2\t",  # brat may list relations before their entities
        "T1\tPER 0 3\tAnn",
        "T2\tPER 8 10\tBo",
        "T3\tLOC 14 18\tOslo",
        "T4\tPER 20 23\tShe",
        "R2\tlives_in Arg1:T2 Arg2:T3",
        "*\tEquiv T1 T4",
    ]
)


@pytest.fixture
def corpus(tmp_path):
    """Write a folder with two texts."""
    folder = tmp_path / "brat"

    def write(annotation: str, text: str = TEXT):
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "a.txt").write_bytes(text.encode())
        (folder / "a.ann").write_bytes(annotation.encode())
        (folder / "sub" / "b.txt").write_text("Nothing.")
        (folder / "sub" / "b.ann").write_text("")
        return folder

    return write


def test_a_folder_is_read(corpus, converted):
    found = converted(corpus(ANN))
    first, second = found.docs
    assert found.format == "brat" and not found.rejects
    assert [doc.user_data["slmre.id"] for doc in found.docs] == ["a", "sub/b"]
    assert entities(first) == [("Ann", "PER"), ("Bo", "PER"), ("Oslo", "LOC"), ("She", "PER")]
    assert found.relations() == [("Ann", "met", "Bo"), ("Bo", "lives_in", "Oslo")]
    assert second._.relations == ()


def test_equivalences_are_coreference_clusters(corpus, converted):
    first, second = converted(corpus(ANN)).docs
    assert [span.text for span in first.spans[f"{CLUSTERS}_1"]] == ["Ann", "She"]
    assert not any(key.startswith(CLUSTERS) for key in second.spans)


def test_one_file_is_read_with_its_text(corpus, converted):
    found = converted(corpus(ANN) / "a.ann")
    assert found.format == "brat" and len(found.docs) == 1 and len(found.relations()) == 2


def test_changed_texts_are_converted_again(corpus, converted):
    folder = corpus(ANN.replace("T1\tPER 0 3\tAnn", "T1\tPER 0 3"))
    assert converted(folder / "a.ann").relations()[0] == ("Ann", "met", "Bo")
    (folder / "a.txt").write_text(TEXT.replace("Ann", "Eve"))
    assert converted(folder / "a.ann").relations()[0] == ("Eve", "met", "Bo")


def test_discontinuous_entities_are_rejected_and_counted(corpus, converted):
    # "New … York"; the fragments of T6 only have a line break between them.
    more = "\nT5\tLOC 30 33;42 46\tNew York\nR3\tlikes Arg1:T4 Arg2:T5\nT6\tX 14 19;20 23\tOslo. She"
    found = converted(corpus(ANN + more))
    assert found.rejects == {"discontinuous entity": 1, "relation of a rejected entity": 1}
    assert ("Oslo.\nShe", "X") in entities(found.docs[0]) and len(found.relations()) == 2


def test_relations_go_from_the_role_arg1_to_arg2(corpus, converted):
    found = converted(corpus(ANN.replace("Arg1:T1 Arg2:T2", "Arg2:T1 Arg1:T2") + "\nR3\tlikes Liked:T3 Who:T4"))
    assert found.relations() == [("Bo", "met", "Ann"), ("Bo", "lives_in", "Oslo"), ("Oslo", "likes", "She")]


def test_relations_of_a_repeated_id_are_rejected(corpus, converted):
    found = converted(corpus(ANN + "\nT4\tPER 0 3\tAnn\nR3\tis Arg1:T4 Arg2:T4"))
    assert found.rejects == {"repeated id": 1, "relation of a rejected entity": 1, "coreference of a missing entity": 1}
    assert len(found.relations()) == 2


def test_other_annotations_are_counted(corpus, converted):
    more = [
        "E1\tMeet:T1 Who:T2",
        "A1\tNegated R1",
        "N1\tReference T3 Wikidata:Q585\tOslo",
        "#1\tAnnotatorNotes T1\tsure?",
        "*\tOther T1 T2",
        "R9\tmet Arg1:E1 Arg2:T2",
    ]
    found = converted(corpus(ANN + "\n" + "\n".join(more)))
    assert found.rejects == {
        "event": 1,
        "attribute": 1,
        "normalization": 1,
        "note": 1,
        "unknown symmetric relation": 1,
        "relation of a missing entity": 1,
    }


def test_windows_line_endings_count_as_characters(corpus, converted):
    text = "Ann\r\nmet Bo.\r\n"
    annotation = "T1\tPER 0 3\tAnn\r\nT2\tPER 9 11\tBo\r\nR1\tmet Arg1:T1 Arg2:T2\r\n"
    found = converted(corpus(annotation, text))
    assert found.relations() == [("Ann", "met", "Bo")] and found.docs[0].text == text


def test_offsets_that_do_not_match_the_text_are_counted(corpus, converted):
    found = converted(corpus(ANN.replace("PER 8 10\tBo", "PER 9 11\tBo") + "\nR5\tlikes Arg1:T4 Arg2:T3"))
    assert found.rejects == {"invalid entity": 1, "relation of a rejected entity": 2}
    assert found.relations() == [("She", "likes", "Oslo")]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("T1\tPER 0 3\tAnn\nT2 PER 8 10 Bo", r"a\.ann:2: 'T2 PER 8 10 Bo' is not a line of brat's standoff format"),
        ("T1\tPER\tAnn", r"a\.ann:1: 'T1 PER Ann' has no offsets"),
        ("T1\tPER 0 x\tAnn", r"a\.ann:1: 'T1 PER 0 x Ann' has no offsets"),
        ("T1\tPER 0 3\tAnn\n\nR1\tmet T1", r"a\.ann:3: 'R1 met T1' is not a relation"),
        ("?\tx", r"a\.ann:1: '\? x' is not a line"),
        ("T1\tPER 0 3\tAnn\n*\t", r"a\.ann:2: '\* ' is not a line"),
        ("T2\t", r"a\.ann:1: 'T2 ' is not a line"),
    ],
)
def test_malformed_lines_are_errors_with_file_and_line(corpus, converted, annotation, message):
    with pytest.raises(CorpusError, match=message):
        converted(corpus(annotation))


def test_missing_texts_are_errors(corpus, converted, tmp_path):
    folder = corpus(ANN)
    (folder / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.ann: its text a\.txt cannot be read"):
        converted(folder)
    (folder / "a.txt").write_bytes(b"Ann \xe9")
    with pytest.raises(CorpusError, match=r"a\.txt: byte 4 is not UTF-8"):
        converted(folder)
    with pytest.raises(CorpusError, match=r"there are no \.ann files"):
        converted(tmp_path / "empty", "brat")

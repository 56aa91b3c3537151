from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import spacy
from spacy.tokens import Doc, Span

from spacy_slmre.coreference import CLUSTERS, MentionCluster, find_clusters, write_clusters

WORDS = "Ann Lee , the mayor , met Bo . She and he left the Red Mill 's hall . They like it .".split()  # noqa: SIM905
HEADS = [1, 6, 1, 4, 1, 1, 6, 6, 6, 12, 9, 9, 12, 15, 15, 17, 15, 12, 12, 20, 20, 20, 20]
DEPS = "compound nsubj punct det appos punct ROOT dobj punct nsubj cc conj ROOT det compound poss case dobj punct nsubj"
TAGS = (
    "PROPN PROPN PUNCT DET NOUN PUNCT VERB PROPN PUNCT PRON CCONJ PRON VERB DET PROPN PROPN PART NOUN PUNCT PRON VERB"
)


@pytest.fixture
def parsed() -> Doc:
    deps = [*DEPS.split(), "ROOT", "dobj", "punct"]
    return entities(Doc(spacy.blank("en").vocab, WORDS, heads=HEADS, deps=deps, pos=[*TAGS.split(), "PRON", "PUNCT"]))


@pytest.fixture
def plain() -> Doc:
    return entities(Doc(spacy.blank("en").vocab, WORDS))


def entities(doc: Doc) -> Doc:
    doc.ents = [Span(doc, 0, 2, "PER"), Span(doc, 7, 8, "PER"), Span(doc, 14, 16, "ORG")]
    return doc


def clusters_of(doc: Doc) -> list[tuple[str, list[str]]]:
    found = find_clusters(doc)
    return [(one.name, [doc.text[start:end] for start, end in one.mentions]) for one in found]


def set_clusters(doc: Doc, *clusters: list[tuple[int, int]]) -> None:
    for number, cluster in enumerate(clusters, 1):
        doc.spans[f"{CLUSTERS}_{number}"] = [doc[start:end] for start, end in cluster]


def test_a_mention_that_contains_an_entity_is_that_entity(parsed: Doc, plain: Doc) -> None:
    set_clusters(parsed, [(0, 6), (9, 10)], [(13, 17), (21, 22)])
    assert clusters_of(parsed) == [("Ann Lee", ["Ann Lee", "She"]), ("Red Mill", ["Red Mill", "it"])]
    # Without a parse, only by its words.
    set_clusters(plain, [(0, 6), (9, 10)], [(13, 17), (21, 22)])
    assert clusters_of(plain)[1] == ("Red Mill", ["Red Mill", "it"])


def test_a_group_or_another_head_is_not_the_entity_in_it(parsed: Doc) -> None:
    set_clusters(parsed, [(13, 18), (21, 22)], [(9, 12), (19, 20)])
    assert [mentions for _, mentions in clusters_of(parsed)] == [["She and he", "They"], ["the Red Mill 's hall", "it"]]


def test_pronouns_and_descriptions_are_no_names(parsed: Doc, plain: Doc) -> None:
    for doc in (parsed, plain):
        set_clusters(doc, [(3, 5), (9, 10)], [(19, 20), (21, 22)])
        assert [name for name, _ in clusters_of(doc)] == ["", ""]


def test_the_name_is_the_longest_entity_and_the_first_of_equally_long_ones(plain: Doc) -> None:
    plain.ents = [*plain.ents, Span(plain, 9, 10, "PER")]
    set_clusters(plain, [(7, 8), (0, 2), (9, 10)])
    assert clusters_of(plain) == [("Ann Lee", ["Ann Lee", "Bo", "She"])]
    ibm = Doc(plain.vocab, ["IBM", "or", "it", "or", "BMI"], ents=["B-ORG", "O", "O", "O", "B-ORG"])
    set_clusters(ibm, [(0, 1), (2, 3), (4, 5)])
    assert clusters_of(ibm)[0][0] == "IBM"


def test_a_mention_in_two_clusters_is_in_the_first_only(plain: Doc) -> None:
    set_clusters(plain, [(0, 2), (9, 10)], [(7, 8), (9, 10), (11, 12)], [(9, 10)])
    assert clusters_of(plain) == [("Ann Lee", ["Ann Lee", "She"]), ("Bo", ["Bo", "he"])]


@dataclass
class CorefereeMention:
    token_indexes: list[int]


@pytest.fixture
def other_extensions() -> Iterator[None]:
    names = ("coref_chains", "coref_clusters")
    for name in names:
        Doc.set_extension(name, default=None)
    yield
    for name in names:
        Doc.remove_extension(name)


@pytest.mark.usefixtures("other_extensions")
def test_clusters_of_coreferee_and_fastcoref_are_read(parsed: Doc, plain: Doc) -> None:
    assert find_clusters(parsed) == ()
    # coreferee's chains are sequences of mentions, which are the numbers of head tokens.
    parsed._.coref_chains = [[CorefereeMention([1]), CorefereeMention([9]), CorefereeMention([9, 11])]]
    assert clusters_of(parsed) == [("Ann Lee", ["Ann Lee", "She"])]
    # fastcoref's clusters are lists of character offsets.
    plain._.coref_clusters = [[(0, 7), (plain[9].idx, plain[9].idx + 3)]]
    assert clusters_of(plain) == [("Ann Lee", ["Ann Lee", "She"])]
    set_clusters(plain, [(7, 8), (11, 12)])
    assert clusters_of(plain) == [("Bo", ["Bo", "he"])]


def test_heads_are_used_where_there_are_no_spans(parsed: Doc) -> None:
    parsed.spans["coref_clusters_mine"] = [parsed[7:8], parsed[9:10]]
    assert find_clusters(parsed) == ()
    parsed.spans["coref_head_clusters_1"] = [parsed[1:2], parsed[9:10]]
    assert clusters_of(parsed) == [("Ann Lee", ["Ann Lee", "She"])]
    set_clusters(parsed, [(7, 8), (11, 12)])
    assert clusters_of(parsed) == [("Bo", ["Bo", "he"])]


def test_written_clusters_are_read_back_with_their_names(plain: Doc) -> None:
    clusters = (MentionCluster(((0, 7), (31, 34)), "Dr. Lee"), MentionCluster(((26, 28),)))
    write_clusters(plain, clusters)
    assert find_clusters(plain) == clusters
    copy = Doc(plain.vocab).from_bytes(plain.to_bytes())
    assert find_clusters(copy) == clusters

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc

from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.gold import gold_pairs
from spacy_slmre.pipeline.examples import make_gold_instances
from spacy_slmre.review.decisions import Decision
from spacy_slmre.review.items import ReviewItem, read_items, write_items
from spacy_slmre.review.session import ReviewSession, open_session
from spacy_slmre.schema import LabelSchema
from spacy_slmre.util.errors import OutputError

PROBABILITIES = {
    ("Ann", "Acme"): {"employer": 0.55, "no_relation": 0.45},
    ("Bo", "Acme"): {"no_relation": 0.6, "employer": 0.4},
    ("Ann", "Bo"): {"spouse": 0.8, "parent": 0.1},
    ("Bo", "Ann"): {"parent": 0.9, "no_relation": 0.1},
    ("Cy", "img"): {"<b>bold</b>": 0.95},
}
EMPLOYER, NEAR, SPOUSE, PARENT, BOLD = range(5)


@pytest.fixture
def items(make_items: Callable) -> list[ReviewItem]:
    return make_items(PROBABILITIES)


@pytest.fixture
def start(items: list[ReviewItem], tmp_path: Path) -> Callable[[], ReviewSession]:
    return lambda: ReviewSession(items, tmp_path / "decisions.jsonl", tmp_path / "reviewed.jsonl")


def accept(number: int, *labels: str, reversed: bool = False) -> Decision:
    return Decision(number, "accept", labels, reversed)


def converted(folder: Path) -> list[Doc]:
    slmre_cli(
        ["convert", str(folder / "reviewed.jsonl"), "-o", str(folder / "gold.spacy"), "-F"], standalone_mode=False
    )
    return list(read_docs(folder / "gold.spacy", spacy.blank("en").vocab))


def rows(folder: Path) -> set[tuple[str, str, str]]:
    """The annotated pairs of the converted output."""
    return {(row.head.text, row.label, row.tail.text) for doc in converted(folder) for row in gold_pairs(doc).rows}


def test_decided_pairs_are_known_and_all_others_are_unknown(start: Callable, tmp_path: Path) -> None:
    session = start()
    session.decide(accept(EMPLOYER, "employer"))
    session.decide(Decision(NEAR, "reject"))
    session.decide(Decision(PARENT, "skip"))
    (doc,) = converted(tmp_path)
    gold = gold_pairs(doc)
    assert not gold.is_complete
    assert {(row.head.text, row.label, row.tail.text) for row in gold.rows} == {
        ("Ann", "employer", "Acme & Sons"),
        ("Bo", "no_relation", "Acme & Sons"),
    }
    assert [(one.head.text, one.label) for one in doc._.relations] == [("Ann", "employer")]
    assert len(doc.ents) == 5
    instances = make_gold_instances(doc, LabelSchema.from_labels(["employer"]))
    assert sorted(one.label or "" for one in instances) == ["employer", "no_relation"]


def test_no_output_is_written_before_the_first_decision(start: Callable, tmp_path: Path) -> None:
    start()
    assert not (tmp_path / "reviewed.jsonl").exists()


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (accept(SPOUSE, "spouse"), {("Ann", "spouse", "Bo"), ("Bo", "spouse", "Ann")}),
        (accept(SPOUSE, "parent"), {("Ann", "parent", "Bo"), ("Bo", "child", "Ann")}),
        (accept(SPOUSE, "parent", reversed=True), {("Bo", "parent", "Ann"), ("Ann", "child", "Bo")}),
        (
            accept(EMPLOYER, "employer", reversed=True),
            {("Acme & Sons", "employer", "Ann"), ("Ann", "no_relation", "Acme & Sons")},
        ),
        (
            accept(EMPLOYER, "employer", "<b>bold</b>"),
            {("Ann", "employer", "Acme & Sons"), ("Ann", "<b>bold</b>", "Acme & Sons")},
        ),
        (Decision(SPOUSE, "reject"), {("Ann", "no_relation", "Bo")}),
    ],
)
def test_a_decision_also_settles_the_other_direction_where_labels_say_so(
    start: Callable, tmp_path: Path, decision: Decision, expected: set
) -> None:
    start().decide(decision)
    assert rows(tmp_path) == expected


def test_rejecting_a_symmetric_label_settles_the_other_direction(make_items: Callable, tmp_path: Path) -> None:
    items = make_items({("Ann", "Bo"): {"spouse": 0.8}, ("Ann", "Acme"): {"employer": 0.55}})
    session = ReviewSession(items, tmp_path / "decisions.jsonl", tmp_path / "reviewed.jsonl")
    for number in range(2):
        session.decide(Decision(number, "reject"))
    assert rows(tmp_path) == {
        ("Ann", "no_relation", "Bo"),
        ("Bo", "no_relation", "Ann"),
        ("Ann", "no_relation", "Acme & Sons"),
    }


def test_later_decision_replaces_an_earlier_one_and_what_followed_from_it(start: Callable, tmp_path: Path) -> None:
    session = start()
    session.decide(accept(SPOUSE, "spouse"))
    assert session.is_decided(PARENT)
    session.decide(Decision(SPOUSE, "reject"))
    assert not session.is_decided(PARENT) and rows(tmp_path) == {("Ann", "no_relation", "Bo")}
    session.decide(Decision(SPOUSE, "skip"))
    assert session.n_decided == 0 and (tmp_path / "reviewed.jsonl").read_text("utf-8") == ""


def test_decision_about_a_pair_counts_more_than_one_about_its_other_direction(start: Callable, tmp_path: Path) -> None:
    session = start()
    session.decide(Decision(PARENT, "reject"))
    session.decide(accept(SPOUSE, "spouse"))
    assert rows(tmp_path) == {("Ann", "spouse", "Bo"), ("Bo", "no_relation", "Ann")}


def test_pairs_come_in_order_and_skipped_ones_last(start: Callable) -> None:
    session = start()
    order = []
    for action in ("skip", "reject", "skip", "reject", "reject", "reject"):
        order.append(session.next_item())
        session.decide(Decision(order[-1], action))
    assert order == [0, 1, 2, 3, 4, 0]
    session.decide(Decision(2, "skip"))
    assert session.next_item() == 2
    session.decide(Decision(2, "reject"))
    assert session.next_item() is None and session.n_decided == 5


def test_next_session_continues_where_the_last_one_was_killed(start: Callable, tmp_path: Path) -> None:
    session = start()
    session.decide(accept(EMPLOYER, "employer"))
    session.decide(Decision(NEAR, "skip"))
    output = (tmp_path / "reviewed.jsonl").read_bytes()
    # Killed while the next decision was written, and before the output was.
    with (tmp_path / "decisions.jsonl").open("ab") as log:
        log.write(b'{"item": 2, "act')
    (tmp_path / "reviewed.jsonl").unlink()
    again = start()
    assert (tmp_path / "reviewed.jsonl").read_bytes() == output
    assert again.n_decided == 1 and again.next_item() == SPOUSE
    again.decide(Decision(SPOUSE, "reject"))
    assert list(start().decisions) == [EMPLOYER, NEAR, SPOUSE]


def test_damaged_line_of_the_log_is_an_error(start: Callable, tmp_path: Path) -> None:
    start().decide(Decision(NEAR, "reject"))
    log = tmp_path / "decisions.jsonl"
    log.write_bytes(b'{"item": 77, "action": "reject"}\n' + log.read_bytes())
    with pytest.raises(OutputError, match=r"decisions\.jsonl:1 is damaged .* no pair with the number 77"):
        start()


def test_damaged_pairs_are_an_error(make_items: Callable, tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    write_items(file, make_items(PROBABILITIES))
    assert [item.margin for item in read_items(file)] == [item.margin for item in make_items(PROBABILITIES)]
    data = json.loads(file.read_text("utf-8"))
    del data["items"][1]["margin"]
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(OutputError, match=r"items\.json: the file is damaged: the key 'margin' is missing"):
        read_items(file)


def test_several_documents_are_written_each_once(make_items: Callable, tmp_path: Path) -> None:
    items = [item for id in "ab" for item in make_items(PROBABILITIES, id=id)]
    session = ReviewSession(items, tmp_path / "log", tmp_path / "reviewed.jsonl")
    for number in (7, 0, 6):
        session.decide(Decision(number, "reject"))
    written = [json.loads(line) for line in (tmp_path / "reviewed.jsonl").read_text("utf-8").splitlines()]
    assert [(one["id"], len(one["pairs"])) for one in written] == [("a", 1), ("b", 2)]


def test_pairs_are_ranked_once_and_kept_for_later_sessions(items: list[ReviewItem], tmp_path: Path) -> None:
    output, calls = tmp_path / "reviewed.jsonl", []

    def rank() -> list[ReviewItem]:
        calls.append(1)
        return items

    for number in range(3):
        with open_session(output, {"pipeline": "a"}, rank) as session:
            assert session.n_decided == number
            session.decide(Decision(number, "reject"))
    assert len(calls) == 1
    with pytest.raises(OutputError, match="different pipeline"), open_session(output, {"pipeline": "b"}, rank):
        pass
    with open_session(output, {"pipeline": "b"}, rank, overwrite=True) as session:
        assert session.n_decided == 0
    assert len(calls) == 2


def test_changed_pipeline_without_decisions_starts_a_new_session(items: list[ReviewItem], tmp_path: Path) -> None:
    for pipeline in "ab":
        with open_session(tmp_path / "reviewed.jsonl", {"pipeline": pipeline}, lambda: items) as session:
            assert len(session.items) == 5


def test_foreign_output_is_not_replaced(items: list[ReviewItem], tmp_path: Path) -> None:
    (tmp_path / "reviewed.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="exists"), open_session(tmp_path / "reviewed.jsonl", {}, lambda: items):
        pass
    assert (tmp_path / "reviewed.jsonl").read_text() == "mine"

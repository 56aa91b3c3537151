"""Reading corpora with many label sets."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from spacy_slmre.corpus.label_sets import LabelSetReader, read_label_sets
from spacy_slmre.corpus.sources import CorpusError

LABELS = {
    "parent": {"wording": "parent", "definition": "", "symmetric": False, "inverse": "child"},
    "child": {"wording": "child", "definition": "", "symmetric": False, "inverse": "parent"},
    "spouse": {"wording": "spouse", "definition": "", "symmetric": True, "inverse": None},
}
TEXT = "Ann, Bo's mother, married Cy."
ENTITIES = [{"start": 0, "end": 3, "type": "PER"}, {"start": 5, "end": 7, "type": "PER"}]
ENTITIES += [{"start": 26, "end": 28, "type": "PER"}]
RELATIONS = [{"head": 1, "tail": 0, "label": "parent"}, {"head": 0, "tail": 2, "label": "spouse"}]


def write(folder: Path, *rows: dict[str, Any], name: str = "family") -> Path:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    (folder / "labels" / f"{name}.json").write_text(json.dumps(LABELS))
    with lzma.open(folder / f"{name}.jsonl.xz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def row(**changes: Any) -> dict[str, Any]:
    passage = {"id": "1", "text": TEXT, "entities": ENTITIES, "relations": RELATIONS, "exhaustive": True}
    return {**passage, "negatives": [], **changes}


def test_symmetric_and_inverse_labels_hold_in_both_directions(tmp_path: Path) -> None:
    (corpus,) = read_label_sets(write(tmp_path, row()))
    (passage,) = corpus.passages
    assert {pair: set(names) for pair, names in passage.labels.items()} == {
        (1, 0): {"parent"},
        (0, 1): {"child"},
        (0, 2): {"spouse"},
        (2, 0): {"spouse"},
    }
    # Exhaustive: all other pairs have no relation.
    assert set(passage.negatives) == {(1, 2), (2, 1)}
    assert corpus.schema.negative_label == "no_relation"
    labels = [(instance.head, instance.tail, instance.label) for instance in corpus.instances()]
    assert labels == [
        (0, 1, "child"),
        (0, 2, "spouse"),
        (1, 0, "parent"),
        (1, 2, "no_relation"),
        (2, 0, "spouse"),
        (2, 1, "no_relation"),
    ]


def test_pairs_of_other_passages_are_unknown(tmp_path: Path) -> None:
    (corpus,) = read_label_sets(write(tmp_path, row(exhaustive=False)))
    assert corpus.schema.negative_label is None
    assert all(instance.label != "no_relation" for instance in corpus.instances())
    (corpus,) = read_label_sets(write(tmp_path, row(exhaustive=False, negatives=[[1, 2], [1, 0]])))
    assert corpus.passages[0].negatives == ((1, 2),), "a pair with a relation is not negative"


def test_labels_that_are_known_not_to_hold(tmp_path: Path) -> None:
    folder = write(
        tmp_path, row(exhaustive=False, checked=["parent"], label_negatives=[[1, 2, "spouse"], [2, 1, "spouse"]])
    )
    passage = read_label_sets(folder)[0].passages[0]
    assert passage.is_negative((1, 2), frozenset({"spouse", "parent"}))
    assert not passage.is_negative((1, 2), frozenset({"child"}))
    assert not passage.is_negative((0, 2), frozenset({"parent"})), "it has a relation"


def test_an_entity_that_is_listed_twice_is_one_mention(tmp_path: Path) -> None:
    relations = [{"head": 1, "tail": 3, "label": "parent"}]
    folder = write(tmp_path, row(entities=[*ENTITIES, ENTITIES[0]], relations=relations))
    passage = read_label_sets(folder)[0].passages[0]
    assert len(passage.context.mentions) == 3 and set(passage.labels) == {(0, 1), (1, 0)}


def test_dev_instances_are_whole_passages(tmp_path: Path) -> None:
    (corpus,) = read_label_sets(write(tmp_path, row(), row(id="2"), row(id="3")))
    assert len(corpus.instances()) == 18 and len(corpus.instances(max_pairs=13)) == 12


def test_reader(tmp_path: Path) -> None:
    one = write(tmp_path / "one", *(row(id=str(number)) for number in range(9)))
    write(one, row(), name="other")
    orders = []
    for seed in (0, 0, 1):
        (corpus,) = LabelSetReader((str(one),), ("family",), seed=seed)()
        orders.append([passage.id for passage in corpus.passages])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
    (corpus,) = LabelSetReader((str(one),), ("other", "work"))()
    assert corpus.name == "other"
    with pytest.raises(CorpusError, match=r"None of work is in .*one, which have only family, other"):
        LabelSetReader((str(one),), ("work",))()
    with pytest.raises(CorpusError, match=r"family is in more than one file of"):
        LabelSetReader((str(one), str(write(tmp_path / "two", row()))))()


def test_a_set_in_two_files_of_a_folder_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path, row())
    (folder / "family.jsonl").write_text(json.dumps(row(id="2")) + "\n")
    with pytest.raises(CorpusError, match=r"family is in more than one file of"):
        LabelSetReader((str(folder),))()


def test_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"has no file SET\.jsonl"):
        read_label_sets(tmp_path)
    with pytest.raises(CorpusError, match=r"family.jsonl.xz:2: the passage is malformed.*'relative'"):
        read_label_sets(write(tmp_path, row(), row(relations=[{"head": 0, "tail": 1, "label": "relative"}])))
    (tmp_path / "labels" / "family.json").unlink()
    with pytest.raises(CorpusError, match=r"family\.json cannot be read"):
        read_label_sets(tmp_path)

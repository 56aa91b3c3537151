"""The markup of the written corpus, and the corpora that are compiled from it and from the universal corpus."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import general_corpus  # noqa: E402
import written_corpus  # noqa: E402
from written_corpus import Mention, Passage, label_pairs, parse_markup, read_passages  # noqa: E402

from spacy_slmre.corpus.label_sets import read_label_sets  # noqa: E402
from spacy_slmre.schema import LabelSchema  # noqa: E402

ASSETS = ROOT / "assets" / "written_corpus"
GENERAL = written_corpus.general_labels()
TRADE = {"supplies": {"wording": "supplies", "definition": "", "symmetric": False, "inverse": None}}
PASSAGE = """== letter / trade
[Ada|PER 1] and [[her|PER 1] brother|PER 2] [Nils|PER 2] ran [Teles|ORG 3]. [It|ORG 3] supplied [Brandt|ORG 4].
1 > sibling > 2
1 > employer > 3
3 > supplies > 4
"""


def read(tmp_path: Path, text: str) -> list[Passage | str]:
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    return list(read_passages(tmp_path / "x.txt", {"trade": TRADE}))


def test_nested_mentions() -> None:
    text, mentions = parse_markup("[[her|PER 1] brother|PER 2] [Nils|PER 2]")
    assert text == "her brother Nils"
    assert mentions == [Mention(0, 11, "PER", 2), Mention(0, 3, "PER", 1), Mention(12, 16, "PER", 2)]


def test_relations_of_entities_become_labels_of_pairs(tmp_path: Path) -> None:
    (passage,) = read(tmp_path, PASSAGE)
    assert isinstance(passage, Passage) and (passage.genre, passage.label_set) == ("letter", "trade")
    names = [passage.text[mention.start : mention.end] for mention in passage.mentions]
    positives, negatives = label_pairs(passage, GENERAL)
    found = {(names[head], names[tail]): labels for (head, tail), labels in positives.items()}
    # All pairs of mentions in the sentence with both, and both directions of a symmetric relation.
    siblings = {(one, other) for one in ("Ada", "her") for other in ("her brother", "Nils")}
    assert {pair for pair, labels in found.items() if labels == {"sibling"}} == siblings | {p[::-1] for p in siblings}
    assert found["Ada", "Teles"] == {"employer"} and ("Ada", "It") not in found
    unrelated = {(names[head], names[tail]) for head, tail in negatives}
    assert {("Teles", "Ada"), ("Nils", "Teles"), ("Ada", "her"), ("It", "Brandt")} <= unrelated
    assert not unrelated & {("Ada", "It"), ("Ada", "Teles"), ("Nils", "Ada")}, "unknown or related"
    positives, _ = label_pairs(passage, TRADE)
    # No sentence has "Teles" and "Brandt": the closest mention does.
    assert {(names[head], names[tail]) for head, tail in positives} == {("It", "Brandt")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("letter", "poem", 'expected "== GENRE"'),
        ("/ trade", "/ craft", "no file labels/craft.json"),
        ("[Ada|PER 1]", "[Ada|MAN 1]", "unknown entity type MAN"),
        ("[Ada|PER 1]", "[Ada|PER 1", "malformed markup"),
        ("[Ada|PER 1]", "[Ada|ORG 1]", "entity 1 has several types: ORG, PER"),
        ("[Ada|PER 1]", "[ Ada|PER 1]", "white space at its edge"),
        ("sibling", "brother", "unknown label 'brother'"),
        ("1 > sibling > 2", "1 > sibling > 9", "no mention has the entity number 9"),
        ("1 > sibling > 2", "1 > sibling > 1", "the same entity"),
        ("1 > sibling > 2", "1 > sibling > 2, 2", "written twice"),
        ("1 > sibling > 2", "1 sibling 2", 'expected "head > label > tail, tail"'),
    ],
)
def test_errors_name_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    (problem,) = read(tmp_path, PASSAGE.replace(old, new, 1))
    assert isinstance(problem, str) and f"{tmp_path / 'x.txt'}:1: " in problem and message in problem


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("written")
    written_corpus.compile_corpus(ASSETS, output)
    return output


def test_the_corpus_is_as_large_as_its_card_says(compiled: Path) -> None:
    passages, label_sets = written_corpus.read_corpus(ASSETS)
    n_labels = sum(map(len, label_sets.values()))
    with_set = sum(passage.label_set is not None for passage in passages)
    card = " ".join((ASSETS / "README.md").read_text(encoding="utf-8").split())
    assert f"{len(passages):,} passages" in card and f"{with_set:,} also have labels" in card
    assert f"one of {len(label_sets)} label sets ({n_labels:,} labels with definitions)" in card
    assert {passage.genre for passage in passages} == set(written_corpus.GENRES)
    annotated = {label for passage in passages for _, label, _ in passage.relations}
    assert set(LabelSchema.general().positive_names) <= annotated
    for name, labels in {"general": GENERAL, **label_sets}.items():
        paraphrases = json.loads((ASSETS / "paraphrases" / f"{name}.json").read_text(encoding="utf-8"))
        assert set(paraphrases) == set(labels), name


def test_splits_have_different_passages(compiled: Path) -> None:
    texts = {}
    for split in ("train", "dev", "test"):
        corpora = {corpus.name: corpus for corpus in read_label_sets(compiled / split)}
        texts[split] = {passage.context.text for passage in corpora["written_general"].passages}
        assert corpora["written_general"].paraphrases["author"].wordings
        others = {p.context.text for corpus in corpora.values() for p in corpus.passages}
        assert others == texts[split]
    assert not texts["train"] & (texts["dev"] | texts["test"]) and not texts["dev"] & texts["test"]
    passages, _ = written_corpus.read_corpus(ASSETS)
    for_training = {passage.text for passage in passages if passage.is_training}
    assert for_training and for_training < texts["train"]


def test_agreement_of_an_annotation_with_itself_is_perfect(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "passages").mkdir()
    (tmp_path / "labels" / "trade.json").write_text(json.dumps(TRADE))
    (tmp_path / "passages" / "x.txt").write_text(PASSAGE)
    written_corpus.compare_annotations(tmp_path, tmp_path / "passages")
    assert capsys.readouterr().out.count("1.000") == 5
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text(PASSAGE.replace("1 > employer > 3\n", "").replace("[It|ORG 3]", "It"))
    written_corpus.compare_annotations(tmp_path, other)
    table = [[cell.strip() for cell in row.split("│")[1:-1]] for row in capsys.readouterr().out.splitlines()]
    rows = {row[0]: row[1:] for row in table if row}
    assert rows["mentions"][:2] == ["7", "6"] and rows["coreference links"][:2] == ["3", "2"]


def test_general_labels_of_a_passage() -> None:
    row = {
        "id": "1",
        "text": "",
        "entities": [{"start": 0, "end": 1, "type": kind} for kind in ("PER", "PER", "LOC", "LOC", "MISC")],
        "relations": [
            {"head": 0, "tail": 1, "label": "father"},
            {"head": 2, "tail": 3, "label": "contains administrative territorial entity"},
            {"head": 0, "tail": 4, "label": "sport"},
            {"head": 0, "tail": 2, "label": "work location"},
        ],
        "exhaustive": True,
        "negatives": [],
    }
    new = general_corpus.relabel(row)
    assert {(r["head"], r["label"], r["tail"]) for r in new["relations"]} == {(0, "parent", 1), (3, "located in", 2)}
    negatives = set(map(tuple, new["negatives"]))
    assert (0, 4) in negatives, "a label that no general one resembles"
    assert (2, 3) in negatives, "the other direction"
    assert not negatives & {(0, 2), (2, 0)}, "unclear"
    assert (1, 0) not in negatives, "the inverse label holds"


def test_every_mapped_label_exists() -> None:
    names: set[str] = set()
    for name in general_corpus.SETS:
        file = ROOT / "assets" / "universal_corpus" / "labels" / f"{name}.json"
        if file.exists():
            names |= set(json.loads(file.read_text(encoding="utf-8")))
    mapped = set(general_corpus.LABELS) | general_corpus.UNCLEAR | {name for name, _, _ in general_corpus.TYPED}
    assert mapped <= names, mapped - names
    targets = [*general_corpus.LABELS.values(), *general_corpus.TYPED.values()]
    assert {label.removeprefix("~") for labels in targets for label in labels} <= set(GENERAL)

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from spacy_slmre.corpus.readers import mixture_corpus, relation_corpus
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.mixtures import Mixture, make_manifest
from spacy_slmre.training.corpora import data_hash, draw_demonstrations, read_sets
from spacy_slmre.training.settings import TuningError
from tests.training.conftest import LABELS


@pytest.fixture
def own(tmp_path: Path, write_corpus):
    train = relation_corpus(write_corpus(tmp_path / "train.spacy", 30))
    dev = relation_corpus(write_corpus(tmp_path / "dev.spacy", 6))
    return read_sets(train, dev)


def test_own_corpora_are_under_the_labels_that_occur(own) -> None:
    (one,) = own
    assert one.schema.names == LABELS and one.schema.negative_label == "no_relation"
    assert Counter(i.label for i in one.train) == dict.fromkeys(LABELS, 10)
    assert one.train_ids[3] == "train-3" and one.sources == {"corpus": 30}
    # Entity types are those that the model reads.
    assert (one.train[0].head_mention.type, one.train[0].tail_mention.type) == ("PER", "LOC")


def test_benchmarks_are_grouped_under_their_own_labels(tmp_path: Path, write_corpus) -> None:
    folder = tmp_path / "both.spacy"
    folder.mkdir()
    write_corpus(folder / "a.spacy", 8, ("born_in", "no_relation"), benchmark="demo")
    write_corpus(folder / "b.spacy", 8, ("Other", "Cause-Effect(e1,e2)"), benchmark="semeval2010_task8")
    sets = read_sets(relation_corpus(folder), relation_corpus(folder))
    assert [(one.name, len(one.train), len(one.schema.labels)) for one in sets] == [
        ("demo", 8, 13),
        ("semeval2010_task8", 8, 19),
    ]


def test_documents_are_held_out_where_there_is_no_dev_split(tmp_path: Path, write_corpus) -> None:
    labels = ("born_in", "no_relation")
    ids = [f"train-{document}-{sentence}" for document in range(20) for sentence in range(3)]
    train = write_corpus(tmp_path / "train.spacy", 60, labels, ids, benchmark="demo")
    nothing = relation_corpus(write_corpus(tmp_path / "dev.spacy", 2, benchmark="nyt"))
    told: list[str] = []
    (one,) = read_sets(relation_corpus(train), nothing, holdout=0.3, seed=1, say=told.append)
    documents = {id.rpartition("-")[0] for id in one.train_ids}
    assert 0 < len(one.dev) == 60 - len(one.train) and len(one.dev) % 3 == 0
    assert len(one.train) == 3 * len(documents)
    assert told == [
        "  nyt: 2 dev documents are left out, as nothing of it is trained on",
        f"  demo: no dev documents; {len(one.dev)} of 60 for training are held out",
    ]


@pytest.mark.parametrize(("holdout", "out"), [(0.0, 0), (0.999, 2)])
def test_a_hold_out_of_none_or_all_is_refused(tmp_path: Path, write_corpus, holdout: float, out: int) -> None:
    train = relation_corpus(write_corpus(tmp_path / "train.spacy", 2))
    nothing = relation_corpus(write_corpus(tmp_path / "dev.spacy", 0))
    with pytest.raises(TuningError, match=rf"tune\.holdout = {holdout} holds out {out} of its 2 training"):
        read_sets(train, nothing, holdout=holdout)


def test_labels_of_dev_alone_are_in_the_label_set(tmp_path: Path, write_corpus) -> None:
    train = write_corpus(tmp_path / "train.spacy", 10, ("no_relation", "spouse"))
    dev = write_corpus(tmp_path / "dev.spacy", 3)
    (one,) = read_sets(relation_corpus(train), relation_corpus(dev))
    assert one.schema.names == (*sorted({*LABELS, "spouse"}),)
    # The same where the only document with a label is held out.
    nothing = relation_corpus(write_corpus(tmp_path / "none.spacy", 0))
    alone = relation_corpus(write_corpus(tmp_path / "own.spacy", 20, tuple(f"label{n}" for n in range(20))))
    (one,) = read_sets(alone, nothing, holdout=0.3)
    assert len(one.schema.names) == 20 and one.dev and len(one.train) + len(one.dev) == 20


def test_a_mixture_with_a_dev_split_alone_is_tuned_on(tmp_path: Path, write_corpus) -> None:
    labels = ("born_in", "no_relation")
    for path, number in (("demo/train", 20), ("demo/dev", 8), ("nyt/dev", 40), ("nyt/test", 4)):
        name, split = path.split("/")
        (tmp_path / name).mkdir(exist_ok=True)
        given = labels if name == "demo" else ("/people/person/children",)
        write_corpus(tmp_path / name / f"{split}.spacy", number, given, benchmark=name)
    caps = {"train": 0, "dev": 8}
    manifest = tmp_path / "m.json"
    manifest.write_text(
        json.dumps(make_manifest(Mixture(name="m", benchmarks=("demo", "nyt"), caps=caps), tmp_path))
    )
    told: list[str] = []
    readers = [mixture_corpus(manifest, split, tmp_path) for split in ("train", "dev")]
    demo, nyt = read_sets(*readers, seed=1, say=told.append)
    assert (len(demo.train), len(demo.dev)) == (20, 8)
    assert len(nyt.train) + len(nyt.dev) == 36  # less the four sentences that stand in test
    assert told == [f"  nyt: no dev documents; {len(nyt.dev)} of 36 for training are held out"]


def test_a_label_outside_of_the_schema_names_its_document(tmp_path: Path, write_corpus) -> None:
    reader = relation_corpus(write_corpus(tmp_path / "train.spacy", 3))
    with pytest.raises(TuningError, match=r'document train-0 .* label "employer".*place, no_relation'):
        read_sets(reader, reader, schema=LabelSchema.from_labels(["place"]))


def test_demonstrations_are_drawn_and_taken_out(own) -> None:
    (one,) = own
    before = {id(i.context): i for i in one.train}
    shown = draw_demonstrations(one, 2, seed=3)
    assert sorted(data["label"] == "no_relation" for data in shown) == [False, True]
    assert len(one.train) == len(one.train_ids) == 28
    texts = {i.context.text for i in one.train}
    assert all(data["text"] not in texts for data in shown)
    assert len(before) == 30
    style = PromptStyle(examples=tuple(shown))
    assert len(style.demonstrations_for(one.schema)) == 2
    assert style.demonstrations_for(LabelSchema.from_labels(["other"])) == []


def test_demonstrations_depend_on_the_seed_alone(tmp_path: Path, write_corpus) -> None:
    reader = relation_corpus(write_corpus(tmp_path / "train.spacy", 30))

    def draw(seed: int) -> list:
        return draw_demonstrations(read_sets(reader, reader)[0], 4, seed)

    assert draw(1) == draw(1) != draw(2)
    assert Counter(data["label"] for data in draw(1))["no_relation"] == 2
    with pytest.raises(TuningError, match="40 demonstrations were asked for"):
        draw_demonstrations(read_sets(reader, reader)[0], 40, 1)


def test_data_hash_sees_labels(own) -> None:
    (one,) = own
    assert data_hash(one.train) == data_hash(list(one.train)) != data_hash(one.train[1:])

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spacy_slmre.corpus.readers import relation_corpus
from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.mixtures import Mixture, make_manifest, mixture_corpus
from spacy_slmre.training.config import TrainingSettings, TuningError
from spacy_slmre.training.data import PackedDataset, TuningSet, draw_examples, read_sets
from tests.training.conftest import LABELS


@pytest.fixture
def read(resolve) -> Callable[..., list[TuningSet]]:
    """Read sets from readers."""

    def read(train, dev, *, schema=None, log=lambda _: None, seed=1, **settings) -> list[TuningSet]:
        config = resolve({"training.seed": seed})
        tune = replace(config.tune, **settings)
        return read_sets(replace(config, train=train, dev=dev, schema=schema, tune=tune), log)

    return read


@pytest.fixture
def own(tmp_path: Path, write_corpus, read) -> list[TuningSet]:
    train = relation_corpus(write_corpus(tmp_path / "train.spacy", 30))
    dev = relation_corpus(write_corpus(tmp_path / "dev.spacy", 6))
    return read(train, dev)


def test_a_corpus_without_a_benchmark_has_the_labels_that_occur_in_it(own) -> None:
    (one,) = own
    assert one.schema.names == LABELS and one.schema.negative_label == "no_relation"
    assert Counter(i.label for i in one.train) == dict.fromkeys(LABELS, 10)
    assert one.train_ids[3] == "train-3" and one.sources == {"corpus": 30}
    # Entity types are mapped as for the model.
    assert (one.train[0].head_mention.type, one.train[0].tail_mention.type) == ("PER", "LOC")


def test_each_benchmark_has_its_own_labels(tmp_path: Path, write_corpus, read) -> None:
    folder = tmp_path / "both.spacy"
    folder.mkdir()
    write_corpus(folder / "a.spacy", 8, ("born_in", "no_relation"), format="demo")
    write_corpus(folder / "b.spacy", 8, ("Other", "Cause-Effect(e1,e2)"), format="semeval2010_task8")
    sets = read(relation_corpus(folder), relation_corpus(folder))
    assert [(one.name, len(one.train), len(one.schema.labels)) for one in sets] == [
        ("demo", 8, 13),
        ("semeval2010_task8", 8, 19),
    ]


def test_documents_are_held_out_if_there_is_no_dev_corpus(tmp_path: Path, write_corpus, read) -> None:
    labels = ("born_in", "no_relation")
    ids = [f"train-{document}-{sentence}" for document in range(20) for sentence in range(3)]
    train = write_corpus(tmp_path / "train.spacy", 60, labels, ids, format="demo")
    nothing = relation_corpus(write_corpus(tmp_path / "dev.spacy", 2, format="nyt"))
    logged: list[str] = []
    (one,) = read(relation_corpus(train), nothing, holdout=0.3, seed=1, log=logged.append)
    documents = {id.rpartition("-")[0] for id in one.train_ids}
    assert 0 < len(one.dev) == 60 - len(one.train) and len(one.dev) % 3 == 0
    assert len(one.train) == 3 * len(documents)
    assert logged == [
        f"  demo: no dev documents; {len(one.dev)} of 60 training documents held out",
        "  nyt: 2 dev documents skipped because it has no training documents",
    ]


@pytest.mark.parametrize(("holdout", "out"), [(0.0, 0), (0.999, 2)])
def test_holding_out_no_document_or_all_is_an_error(
    tmp_path: Path, write_corpus, read, holdout: float, out: int
) -> None:
    train = relation_corpus(write_corpus(tmp_path / "train.spacy", 2))
    nothing = relation_corpus(write_corpus(tmp_path / "dev.spacy", 0))
    with pytest.raises(TuningError, match=rf"tune\.holdout = {holdout} holds out {out} of its 2 training"):
        read(train, nothing, holdout=holdout)


def test_labels_that_occur_only_in_dev_documents_are_included(tmp_path: Path, write_corpus, read) -> None:
    train = write_corpus(tmp_path / "train.spacy", 10, ("no_relation", "spouse"))
    dev = write_corpus(tmp_path / "dev.spacy", 3)
    (one,) = read(relation_corpus(train), relation_corpus(dev))
    assert one.schema.names == (*sorted({*LABELS, "spouse"}),)
    # A label whose only document is held out is included, too.
    nothing = relation_corpus(write_corpus(tmp_path / "none.spacy", 0))
    alone = relation_corpus(write_corpus(tmp_path / "own.spacy", 20, tuple(f"label{n}" for n in range(20))))
    (one,) = read(alone, nothing, holdout=0.3)
    assert len(one.schema.names) == 20 and one.dev and len(one.train) + len(one.dev) == 20


def test_a_mixture_trains_on_the_dev_split_of_a_benchmark_without_training_split(
    tmp_path: Path, write_corpus, read
) -> None:
    labels = ("born_in", "no_relation")
    for path, number in (("demo/train", 20), ("demo/dev", 8), ("nyt/dev", 40), ("nyt/test", 4)):
        name, split = path.split("/")
        (tmp_path / name).mkdir(exist_ok=True)
        given = labels if name == "demo" else ("/people/person/children",)
        write_corpus(tmp_path / name / f"{split}.spacy", number, given, format=name)
    caps = {"train": 0, "dev": 8}
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps(make_manifest(Mixture(name="m", benchmarks=("demo", "nyt"), caps=caps), tmp_path)))
    logged: list[str] = []
    readers = [mixture_corpus(manifest, split, tmp_path) for split in ("train", "dev")]
    demo, nyt = read(*readers, seed=1, log=logged.append)
    assert (len(demo.train), len(demo.dev)) == (20, 8)
    assert len(nyt.train) + len(nyt.dev) == 36  # without the four sentences of the test split
    assert logged == [f"  nyt: no dev documents; {len(nyt.dev)} of 36 training documents held out"]


def test_the_document_of_an_unknown_label_is_named(tmp_path: Path, write_corpus, read) -> None:
    reader = relation_corpus(write_corpus(tmp_path / "train.spacy", 3))
    with pytest.raises(TuningError, match=r'document train-0 .* label "employer".*place, no_relation'):
        read(reader, reader, schema=LabelSchema.from_labels(["place"]))


def test_few_shot_examples_are_removed_from_the_training_data(own) -> None:
    (one,) = own
    before = {id(i.context): i for i in one.train}
    shown = draw_examples(one, 2, seed=3)
    assert sorted(data["label"] == "no_relation" for data in shown) == [False, True]
    assert len(one.train) == len(one.train_ids) == 28
    texts = {i.context.text for i in one.train}
    assert all(data["text"] not in texts for data in shown)
    assert len(before) == 30
    style = PromptStyle(examples=tuple(shown))
    assert len(style.examples_for(one.schema)) == 2
    assert style.examples_for(LabelSchema.from_labels(["other"])) == []


def test_few_shot_examples_depend_only_on_the_seed(tmp_path: Path, write_corpus, read) -> None:
    reader = relation_corpus(write_corpus(tmp_path / "train.spacy", 30))

    def draw(seed: int) -> list:
        return draw_examples(read(reader, reader)[0], 4, seed)

    assert draw(1) == draw(1) != draw(2)
    assert Counter(data["label"] for data in draw(1))["no_relation"] == 2
    with pytest.raises(TuningError, match=r"tune\.shots = 40"):
        draw_examples(read(reader, reader)[0], 40, 1)


def test_the_hash_depends_on_the_instances(own) -> None:
    (one,) = own
    before = one.describe()
    assert one.describe() == before and before["train"]["instances"] == 30
    one.train[0], one.train[1] = one.train[1], one.train[0]
    after = one.describe()
    assert after["train"] != before["train"] and after["dev"] == before["dev"]


def test_long_contexts_are_truncated_and_counted(own, tiny_base: Path) -> None:
    (one,) = own
    lm = make_small_lm(base=str(tiny_base), quantization=None, dtype="float32", device="cpu")
    long = RelationInstance.from_offsets(
        "Rome " * 300 + "Ann met Bo" + " Rome" * 300, (1500, 1503, "PER"), (1508, 1510, "PER"), "employer"
    )
    far = RelationInstance.from_offsets("Ann" + " Rome" * 500, (0, 3, "PER"), (2499, 2503, "LOC"), "employer")
    one.train += [long, far]
    one.train_ids += ["long", "far"]
    messages: list[str] = []
    data = PackedDataset(lm, [one], TrainingSettings(max_tokens=400), messages.append)
    assert [message.partition("(")[0] for message in messages] == [
        "  Warning: corpus, train: 2 of 32 pairs have contexts that are too long "
    ]
    assert "1 were truncated" in messages[0] and "1 were skipped" in messages[0]
    assert (data.n_truncated, data.n_skipped) == (1, 1)
    ids = {id for position in range(len(data)) for id in data.doc_ids(position)}
    assert "corpus:long" in ids and "corpus:far" not in ids
    assert all(data[n]["input_ids"].shape[1] <= 400 + 64 for n in range(len(data)))

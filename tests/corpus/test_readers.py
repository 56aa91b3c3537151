from __future__ import annotations

import gc
import json
import pickle
import warnings
from collections import Counter

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.util import registry

from spacy_slmre.candidates import GivenPairs
from spacy_slmre.corpus.docbin import read_docs
from spacy_slmre.corpus.readers import make_predicted, relation_corpus
from spacy_slmre.gold import gold_pairs
from spacy_slmre.pipeline.examples import make_gold_instances
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.study.mixtures import Mixture, make_manifest, mixture_corpus

SCHEMA = LabelSchema.from_labels(["knows"])
LABELS = get_benchmark("demo").schema.names


def pairs(doc):
    return [(head.text, tail.text) for head, tail in doc._.relation_candidates]


def texts(examples):
    return [example.reference.text for example in examples]


def test_the_predicted_side_has_entities_and_pairs(demo, nlp):
    examples = list(relation_corpus(demo / "demo" / "test.spacy")(nlp))
    assert len(examples) == 29
    for example in examples:
        reference, predicted = example.reference, example.predicted
        assert predicted.text == reference.text
        assert [ent.label_ for ent in predicted.ents] == [ent.label_ for ent in reference.ents]
        annotated = {(r.head.text, r.tail.text) for r in reference._.relation_pairs}
        assert set(pairs(predicted)) == annotated
        assert pairs(predicted) == [(h.text, t.text) for h, t in GivenPairs()(predicted, None).pairs]
        assert predicted.user_data["slmre.format"] == "demo"


def test_no_gold_label_is_reachable_from_the_predicted_side(demo, nlp):
    for reference in read_docs(demo / "demo" / "train.spacy", nlp.vocab):
        predicted = make_predicted(reference)
        assert predicted._.relations == () and predicted._.relation_pairs == ()
        # Nothing that the document contains, serializes or refers to names a label.
        seen = [predicted.to_bytes(), pickle.dumps(predicted.user_data), repr(predicted.user_data).encode()]
        for label in LABELS:
            assert not any(label.encode() in content for content in seen)
        assert not any(isinstance(found, Doc) for found in _reachable(predicted.user_data))


def _reachable(start):
    """All objects that can be reached from the values of a document's user data."""
    stack, seen = list(start.values()), set()
    while stack:
        found = stack.pop()
        if id(found) not in seen and not isinstance(found, type):
            seen.add(id(found))
            yield found
            stack += gc.get_referents(found)


def test_the_order_of_pairs_is_independent_of_labels(demo, nlp):
    for reference in read_docs(demo / "demo" / "train.spacy", nlp.vocab):
        spans = [(h.start, h.end, t.start, t.end) for h, t in make_predicted(reference)._.relation_candidates]
        assert spans == sorted(spans)


def test_a_pair_with_several_labels_is_one_candidate(nlp):
    reference = Doc(nlp.vocab, words=["Ann", "and", "Bo"])
    head, tail = reference[0:1], reference[2:3]
    reference._.relation_pairs = [(head, tail, "parent_of"), (head, tail, "teacher_of")]
    assert pairs(make_predicted(reference)) == [("Ann", "Bo")]


def test_limits_and_predicted_entities(demo, nlp):
    path = demo / "demo" / "train.spacy"
    everything = texts(relation_corpus(path)(nlp))
    assert texts(relation_corpus(path, limit=7)(nlp)) == everything[:7]
    few = list(relation_corpus(path, max_pairs=10)(nlp))
    counts = [len(example.reference._.relation_pairs) for example in few]
    assert sum(counts) >= 10 > sum(counts[:-1])
    plain = next(relation_corpus(path, entities="predicted", pairs=False)(nlp)).predicted
    assert not plain.ents and not plain.spans and not plain._.relation_candidates


def test_shuffling_is_seeded_and_differs_between_epochs(demo, nlp):
    path = demo / "demo" / "train.spacy"
    read = relation_corpus(path, shuffle=True, seed=3)
    first, second = texts(read(nlp)), texts(read(nlp))
    assert first != second and sorted(first) == sorted(second) == sorted(texts(relation_corpus(path)(nlp)))
    assert first == texts(relation_corpus(path, shuffle=True, seed=3)(nlp))


def test_a_folder_of_corpora_is_read(demo, nlp):
    assert len(list(relation_corpus(demo / "demo")(nlp))) == 155


@pytest.mark.parametrize("options", [{"entities": "some"}, {"limit": -1}, {"max_pairs": -1}])
def test_settings_out_of_range_are_errors(demo, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        relation_corpus(demo / "demo" / "dev.spacy", **options)


def test_the_same_text_is_never_on_both_sides_of_a_holdout(nlp, tmp_path):
    entities = [{"start": 0, "end": 3}, {"start": 8, "end": 10}]
    relation = {"head": entities[0], "tail": entities[1], "label": "met"}
    names = [f"{first}{second}" for first in "ABCDEFGHIJ" for second in "lmnop"]
    rows = [
        # Each text occurs three times, under ids of its own, and once with other white space.
        {"id": f"{part}/{number}", "text": f"{name}a met Bo.{end}", "entities": entities, "relations": [relation]}
        for part, end in enumerate(("", "\n", ""))
        for number, name in enumerate(names)
    ]
    # Another text is from the same document as one of these.
    rows.append({**rows[7], "text": "Ann met Di."})
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for holdout in (0.2, 0.5):
        kept, held_out = (texts(relation_corpus(path, holdout=holdout, held_out=side)(nlp)) for side in (False, True))
        assert len(kept) + len(held_out) == 151 and kept and held_out
        assert not {text.strip() for text in kept} & {text.strip() for text in held_out}
        assert any({rows[7]["text"], "Ann met Di."} <= {*side} for side in (kept, held_out))


def test_the_rel_of_spacys_tutorial_is_read(nlp, tmp_path):
    Doc.set_extension("rel", default={}, force=True)
    doc = nlp("Ann lives in Oslo.")
    doc.set_ents([Span(doc, 0, 1, "PER"), Span(doc, 3, 4, "LOC")])
    doc._.rel = {(0, 3): {"lives in": 1.0}, (3, 0): {"lives in": 0.0}}
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "rel.spacy")
    (example,) = relation_corpus(tmp_path / "rel.spacy")(nlp)
    assert [(one.head.text, one.label) for one in example.reference._.relations] == [("Ann", "lives in")]
    assert len(gold_pairs(example.reference).known_pairs()) == 2


def test_a_missing_corpus_is_an_error(nlp, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        list(relation_corpus(tmp_path / "gone.spacy")(nlp))


@pytest.fixture(scope="module")
def manifest(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("mixture") / "m.json"
    made = Mixture(name="m", benchmarks=("demo",), caps={"train": 50})
    path.write_text(json.dumps(make_manifest(made, demo)))
    return path


def test_a_mixture_is_read(demo, manifest, nlp):
    read = mixture_corpus(manifest, "train", demo)
    examples = list(read(nlp))
    assert sum(len(example.reference._.relation_pairs) for example in examples) == 50
    assert all(len(pairs(example.predicted)) <= len(example.reference._.relation_pairs) for example in examples)
    assert texts(read(nlp)) == texts(examples)
    assert len(list(mixture_corpus(manifest, "train", demo, limit=4, shuffle=True)(nlp))) == 4


def test_readers_are_registered(demo, manifest):
    config = {
        "corpora": {
            "one": {"@readers": "spacy-slmre.RelationCorpus.v1", "path": str(demo / "demo" / "dev.spacy"), "limit": 3},
            "many": {
                "@readers": "spacy-slmre.MixtureCorpus.v1",
                "manifest": str(manifest),
                "split": "train",
                "corpora": str(demo),
            },
        }
    }
    readers = registry.resolve(config)["corpora"]
    assert len(list(readers["one"](spacy.blank("en")))) == 3
    assert len(list(readers["many"](spacy.blank("en")))) > 3


def test_holdout_and_the_rest_are_disjoint_and_complete(demo, nlp):
    corpus = demo / "demo" / "train.spacy"
    everything = texts(relation_corpus(corpus)(nlp))
    kept = texts(relation_corpus(corpus, holdout=0.3)(nlp))
    held_out = texts(relation_corpus(corpus, holdout=0.3, held_out=True)(nlp))
    assert sorted(kept + held_out) == sorted(everything) and not set(kept) & set(held_out)
    assert 0.15 < len(held_out) / len(everything) < 0.45
    # A larger share holds out the same documents, and more.
    assert set(held_out) <= set(texts(relation_corpus(corpus, holdout=0.5, held_out=True)(nlp)))


@pytest.mark.parametrize("settings", [{"holdout": 1.0}, {"holdout": -0.1}, {"held_out": True}])
def test_a_holdout_out_of_range_is_an_error(demo, settings):
    with pytest.raises(ValueError, match="holdout must be"):
        relation_corpus(demo / "demo" / "train.spacy", **settings)


@pytest.fixture
def annotated(tmp_path):
    """Two documents with four entities: one annotates relations, the other pairs."""
    nlp = spacy.blank("en")
    docs = []
    for attr in ("relations", "relation_pairs"):
        doc = Doc(nlp.vocab, words=["A", "B", "C", "D", attr])
        doc.set_ents([Span(doc, n, n + 1, "PERSON") for n in range(4)])
        rows = [(doc.ents[0], doc.ents[1], "knows"), (doc.ents[1], doc.ents[0], "knows")]
        negative = [(doc.ents[2], doc.ents[0], "no_relation")]
        setattr(doc._, attr, rows + negative * (attr == "relation_pairs"))
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "corpus.spacy")
    return tmp_path / "corpus.spacy"


@pytest.mark.parametrize(("negatives", "number"), [(None, 11), (0, 1), (1, 4), (1.5, 6), (9, 20), (-1, 20)])
def test_negatives_are_sampled_from_the_pairs_without_annotation(annotated, nlp, negatives, number):
    def read(seed=0):
        examples = relation_corpus(annotated, negatives=negatives, seed=seed)(nlp)
        return [make_gold_instances(example.reference, SCHEMA) for example in examples]

    labels = [Counter(instance.label for instance in instances) for instances in read()]
    assert sum(count["no_relation"] for count in labels) == number
    assert [count["knows"] for count in labels] == [2, 2] and labels[1]["no_relation"] >= 1
    examples = relation_corpus(annotated, negatives=negatives)(nlp)
    assert [len(pairs(example.predicted)) for example in examples] == [count.total() for count in labels]

    def chosen(seed):
        return [[(i.head, i.tail) for i in instances] for instances in read(seed)]

    assert chosen(1) == chosen(1)
    assert (len({str(chosen(seed)) for seed in range(5)}) > 1) == (negatives in (1, 1.5))


def test_documents_without_relations_have_their_share_of_the_negatives(nlp, tmp_path):
    docs = []
    for number in range(60):
        doc = Doc(nlp.vocab, words=["A", "B", "C", str(number)])
        doc.set_ents([Span(doc, n, n + 1, "PERSON") for n in range(3)])
        doc._.relations = [(doc.ents[0], doc.ents[1], "knows")] * (number < 30)
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "corpus.spacy")

    def sampled(**settings):
        reader = relation_corpus(tmp_path / "corpus.spacy", **settings)
        first, second = (
            [len(example.reference._.relation_pairs) - len(example.reference._.relations) for example in reader(nlp)]
            for _ in range(2)
        )
        assert first == second
        return first

    # 30 of 330 candidate pairs have a relation, 150 are in the same documents, and 180 in others.
    for seed in range(5):
        numbers = sampled(negatives=4, seed=seed)
        assert sum(numbers) == 120 and sum(numbers[:30]) in (54, 55)
    assert sum(sampled(negatives=4, limit=45)) == 120 and sum(sampled(negatives=1, limit=45)) == 30
    assert sampled(negatives=0) == [0] * 60 and sampled(negatives=-1) == [5] * 30 + [6] * 30


def test_a_warning_about_rejects_is_given_once(nlp, tmp_path):
    row = {"text": "Ann met Bo.", "entity1": "Ann", "entity2": "Bo", "relation": "met"}
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, [row, {**row, "text": "Nobody came."}])), encoding="utf-8")
    read = relation_corpus(path, negatives=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert texts(read(nlp)) == texts(read(nlp)) == ["Ann met Bo."]
    assert ["could not be converted" in str(one.message) for one in caught] == [True]


def test_negatives_out_of_range_are_an_error(annotated):
    with pytest.raises(ValueError, match="negatives = -2, but it must be 0 or more, or -1"):
        relation_corpus(annotated, negatives=-2)


def test_batches_have_about_the_wanted_number_of_pairs(demo, nlp):
    examples = list(relation_corpus(demo / "demo" / "train.spacy")(nlp))
    batches = list(registry.batchers.get("spacy-slmre.BatchByPairs.v1")(size=20)(examples))
    assert [example for batch in batches for example in batch] == examples
    counts = [[len(pairs(example.predicted)) for example in batch] for batch in batches]
    assert all(sum(count) >= 20 > sum(count[:-1]) for count in counts[:-1])
    with pytest.raises(ValueError, match="at least 1"):
        registry.batchers.get("spacy-slmre.BatchByPairs.v1")(size=0)

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.corpus.sources import CorpusError
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import get_benchmark
from spacy_slmre.study.mixtures import Mixture, make_manifest, read_manifest, read_mixture, verify_manifest


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, demo):
    """demo (general, 348 pairs or so), conll04 (general, 30) and crossre (literary, 40 in 20 documents)."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(demo / "demo", folder / "demo")
    conll = [
        {
            "tokens": ["Ann", str(n), "of", "Oslo"],
            "entities": [[0, 2, "Peop"], [3, 4, "Loc"]],
            "relations": [[0, 2, 3, 4, "Live_In"]],
        }
        for n in range(30)
    ]
    crossre = [
        {
            "doc_key": f"d{n}",
            "sentence": ["Ann", str(n), "wrote", "Dust"],
            "ner": [[0, 1, "writer"], [3, 3, "book"]],
            "relations": [[3, 3, 0, 1, "artifact"], [0, 1, 3, 3, "role"]],
        }
        for n in range(20)
    ]
    for name, rows in (("conll04", conll), ("crossre", crossre)):
        source = folder / f"{name}.json"
        source.write_text(json.dumps(rows))
        convert(get_benchmark(name), source, folder / name / "train.spacy", split="train", shard_size=8)
    return folder


def mixture(**changes):
    values = {"name": "m", "benchmarks": ("demo", "conll04", "crossre"), "caps": {"train": 0}, "seed": 1}
    return Mixture(**{**values, **changes})


def sampled(manifest, split="train"):
    return {s["benchmark"]: s["sample"]["pairs"] for s in manifest["splits"][split]["sources"]}


def ids(manifest, corpora, nlp, split="train"):
    return [
        (doc.user_data["slmre.format"], doc.user_data["slmre.id"], len(doc._.relation_pairs))
        for doc in read_mixture(manifest, split, corpora, nlp.vocab)
    ]


def test_without_a_cap_everything_is_taken(corpora, nlp):
    manifest = make_manifest(mixture(), corpora)
    available = {s["benchmark"]: s["available"]["pairs"] for s in manifest["splits"]["train"]["sources"]}
    assert sampled(manifest) == available and available["conll04"] == 30 and available["crossre"] == 40
    read = Counter()
    for name, _, pairs in ids(manifest, corpora, nlp):
        read[name] += pairs
    assert read == available


@pytest.mark.parametrize("cap", [1, 37, 100])
def test_a_cap_is_met_to_the_pair(corpora, nlp, cap):
    manifest = make_manifest(mixture(caps={"train": cap}), corpora)
    assert sum(sampled(manifest).values()) == manifest["splits"]["train"]["pairs"] == cap
    docs = list(read_mixture(manifest, "train", corpora, nlp.vocab))
    assert sum(len(doc._.relation_pairs) for doc in docs) == cap
    assert len(docs) == manifest["splits"]["train"]["documents"]
    for doc in docs:
        kept = {(r.head.start_char, r.tail.start_char, r.label) for r in doc._.relation_pairs}
        assert {(r.head.start_char, r.tail.start_char, r.label) for r in doc._.relations} <= kept


def test_domains_are_balanced(corpora):
    assert sampled(make_manifest(mixture(balance="domain", caps={"train": 60}), corpora))["crossre"] == 30
    # The smaller domain bounds the larger one.
    counts = sampled(make_manifest(mixture(balance="domain", caps={"train": 1000}), corpora))
    assert counts["crossre"] == 40 and counts["demo"] + counts["conll04"] == 40


def test_benchmarks_are_balanced(corpora):
    counts = sampled(make_manifest(mixture(balance="benchmark", caps={"train": 75}), corpora))
    assert counts == {"demo": 25, "conll04": 25, "crossre": 25}


def test_a_manifest_determines_the_sample(corpora, nlp, tmp_path):
    manifest = make_manifest(mixture(caps={"train": 50}), corpora)
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    again = read_manifest(tmp_path / "m.json")
    assert ids(again, corpora, nlp) == ids(manifest, corpora, nlp)
    assert make_manifest(mixture(caps={"train": 50}), corpora) == manifest
    assert make_manifest(mixture(caps={"train": 50}, seed=2), corpora) != manifest
    verify_manifest(again, "train", corpora)
    assert set(again["schemas"]) == {"demo", "conll04", "crossre"}
    assert LabelSchema.from_dict(again["schemas"]["crossre"]) == get_benchmark("crossre").schema


def test_the_benchmarks_are_mixed(corpora, nlp):
    names = [name for name, _, _ in ids(make_manifest(mixture(), corpora), corpora, nlp)]
    changes = sum(first != second for first, second in itertools.pairwise(names))
    assert changes > 20


def test_a_changed_corpus_is_noticed(corpora, tmp_path):
    shutil.copytree(corpora, tmp_path / "c")
    manifest = make_manifest(mixture(), tmp_path / "c")
    source = tmp_path / "c" / "conll04.json"
    source.write_text(json.dumps(json.loads(source.read_text())[:-1]))
    convert(get_benchmark("conll04"), source, tmp_path / "c" / "conll04" / "train.spacy", split="train", overwrite=True)
    with pytest.raises(CorpusError, match="is not the corpus that the mixture was made from"):
        verify_manifest(manifest, "train", tmp_path / "c")


def test_missing_benchmarks_and_splits_are_reported(corpora):
    with pytest.raises(CorpusError, match=r"There is no corpus of tacred .*set skip_missing"):
        make_manifest(mixture(benchmarks=("demo", "tacred")), corpora)
    manifest = make_manifest(mixture(benchmarks=("demo", "tacred")), corpora, skip_missing=True)
    assert manifest["splits"]["train"]["missing"] == ["tacred"]
    manifest = make_manifest(mixture(caps={"train": 0, "dev": 0}), corpora)
    assert manifest["splits"]["dev"]["missing"] == ["conll04", "crossre"]
    with pytest.raises(CorpusError, match='no split "eval"'):
        verify_manifest(manifest, "eval", corpora)


@pytest.fixture
def with_dev_only(corpora, tmp_path):
    """The same with a dev split of crossre alone, four of whose texts also occur in its test split."""
    shutil.copytree(corpora, tmp_path / "c")
    (tmp_path / "c" / "crossre" / "train.spacy").rename(tmp_path / "c" / "crossre" / "dev.spacy")
    rows = json.loads((corpora / "crossre.json").read_text())
    (tmp_path / "test.json").write_text(json.dumps(rows[3:7]))
    test = tmp_path / "c" / "crossre" / "test.spacy"
    convert(get_benchmark("crossre"), tmp_path / "test.json", test, split="test")
    return tmp_path / "c"


def test_a_benchmark_with_only_a_dev_split_is_trained_on_it(with_dev_only, nlp):
    caps = {"train": 0, "dev": 20}
    manifest = make_manifest(mixture(caps=caps), with_dev_only)
    source = manifest["splits"]["train"]["sources"][-1]
    assert source["path"] == "crossre/dev.spacy" and source["available"] == {"documents": 16, "pairs": 32}
    assert source["excluded"] == {"test": "crossre/test.spacy", "positions": [3, 4, 5, 6]}
    assert sampled(manifest, "dev") == {"demo": 20}  # the cap is for the benchmarks evaluated on dev
    assert manifest["splits"]["dev"]["missing"] == ["conll04"] and not manifest["splits"]["train"]["missing"]
    verify_manifest(manifest, "train", with_dev_only)
    read = [doc for doc in ids(manifest, with_dev_only, nlp) if doc[0] == "crossre"]
    assert [name for _, name, _ in read] == [f"d{n}" for n in range(20) if n not in (3, 4, 5, 6)]
    # Under a cap too, what is read is what was counted.
    capped = make_manifest(mixture(caps=caps | {"train": 90}), with_dev_only)
    assert sum(pairs for *_, pairs in ids(capped, with_dev_only, nlp)) == 90
    assert not {("crossre", f"d{n}", 2) for n in (3, 4, 5, 6)} & set(ids(capped, with_dev_only, nlp))


def test_without_a_test_split_no_document_is_excluded(with_dev_only, nlp):
    (with_dev_only / "crossre" / "test.spacy").unlink()
    only = mixture(benchmarks=("crossre",), caps={"train": 0, "dev": 0})
    manifest = make_manifest(only, with_dev_only)  # nothing is missing
    assert manifest["splits"]["train"]["sources"][0]["excluded"] == {"test": None, "positions": []}
    assert len(ids(manifest, with_dev_only, nlp)) == 20 and not ids(manifest, with_dev_only, nlp, "dev")
    # A mixture without dev does not take the dev split.
    with pytest.raises(CorpusError, match="There is no corpus of crossre"):
        make_manifest(mixture(benchmarks=("demo", "crossre")), with_dev_only)


def test_with_training_splits_nothing_is_excluded(corpora):
    manifest = make_manifest(mixture(caps={"train": 0, "dev": 0}), corpora)
    assert not any("excluded" in one for split in manifest["splits"].values() for one in split["sources"])


def test_a_domain_without_a_corpus_cannot_be_balanced(corpora):
    balanced = mixture(benchmarks=("demo", "biographical", "pg_fiction"), balance="domain")
    with pytest.raises(CorpusError, match=r"no literary .*\(biographical, pg_fiction\).*-open\.cfg"):
        make_manifest(balanced, corpora, skip_missing=True)
    enough = mixture(benchmarks=("demo", "crossre", "pg_fiction"), balance="domain")
    assert sampled(make_manifest(enough, corpora, skip_missing=True)) == {"demo": 40, "crossre": 40}


@pytest.mark.parametrize(
    "changes",
    [{"balance": "all"}, {"benchmarks": ()}, {"benchmarks": ("demo", "demo")}, {"caps": {}}, {"caps": {"train": -1}}],
)
def test_settings_out_of_range_are_errors(changes):
    with pytest.raises(CorpusError):
        mixture(**changes)


def test_unreadable_configs_and_manifests_are_errors(write, tmp_path):
    with pytest.raises(CorpusError, match="cannot be read"):
        Mixture.from_file(tmp_path / "gone.cfg")
    start = '[mixture]\nname = "m"\n'
    for number, (text, message) in enumerate(
        [
            ("nonsense", "does not describe a mixture"),
            ("[other]\na = 1", r"has no section \[mixture\]"),
            (f'{start}benchmarks = ["demo"]\nx = 1', r"unknown settings: mixture\.x"),
            (f'{start}benchmarks = "demo"\n[mixture.caps]\ntrain = 1', r"mixture\.benchmarks = 'demo'"),
            (f'{start}benchmarks = ["demo"]\ncaps = 5', r"mixture\.caps = 5"),
            (f'{start}benchmarks = ["demo"]\n[mixture.caps]\ntrain = true', r"mixture\.caps\.train = True"),
            (f'{start}benchmarks = ["demo"]\n[mixture.caps]\ntrian = 1', "unknown splits"),
        ]
    ):
        with pytest.raises(CorpusError, match=message):
            Mixture.from_file(write(f"{number}.cfg", text))
    for number, text in enumerate(["nonsense", "[]", '{"splits": 1}']):
        with pytest.raises(CorpusError, match="is not a mixture manifest"):
            read_manifest(write(f"{number}.json", text))


MIXTURES = Path(__file__).parents[2] / "configs" / "mixtures"


@pytest.mark.parametrize("name", sorted(path.stem for path in MIXTURES.glob("*.cfg")))
def test_the_shipped_configs_are_the_studys_mixtures(name):
    made = Mixture.from_file(MIXTURES / f"{name}.cfg")
    assert made.name == name and made.seed == 42
    domains = {get_benchmark(benchmark).domain for benchmark in made.benchmarks}
    if name.endswith("demo"):
        assert made.benchmarks == ("demo",) and made.caps == {"train": 200, "dev": 50}
        return
    regime = name.removesuffix("-open")
    wanted = {"gentune": {"general"}, "littune": {"literary"}, "mixtune": {"general", "literary"}}
    assert domains == wanted[regime]
    assert made.caps == {"train": 200_000, "dev": 20_000}
    assert made.balance == ("domain" if regime == "mixtune" else "none")

"""Every command counts the same pairs of a gold corpus, and never the unknown ones."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner

from spacy_slmre.candidates import EntityPairs
from spacy_slmre.cli import slmre_cli
from spacy_slmre.corpus.readers import make_predicted, relation_corpus
from spacy_slmre.corpus.summary import Summary
from spacy_slmre.evaluation.gold import make_evaluation_pairs, read_gold
from spacy_slmre.gold import gold_pairs
from spacy_slmre.pipeline.calibrate import calibrate
from spacy_slmre.pipeline.examples import collect_schema, make_training_instances
from spacy_slmre.relations import install_extensions, write_label_properties
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.mixtures import Mixture, make_manifest, mixture_corpus
from spacy_slmre.training.config import parse_config, resolve_config
from spacy_slmre.training.data import read_sets
from tests.conftest import PATTERNS, TEXTS

CONFIG = """
[corpora]

[corpora.train]
@readers = "spacy-slmre.RelationCorpus.v1"
path = null

[corpora.dev]
@readers = "spacy-slmre.RelationCorpus.v1"
path = null
"""
NAMES = ("Ann", "Bo", "Cy", "Dee", "Eva")


def people(nlp: Language) -> Doc:
    """Make a sentence with five entities, and so 20 pairs."""
    doc = Doc(nlp.vocab, words=[*NAMES, "met", "."], sent_starts=[True, *[False] * 6])
    doc.set_ents([Span(doc, n, n + 1, "PERSON") for n in range(len(NAMES))])
    return doc


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus with 11 relations and 389 unrelated pairs of entities, in 20 documents."""
    install_extensions()
    nlp = spacy.blank("en")
    docs = [people(nlp) for _ in range(20)]
    for number, doc in enumerate(docs):
        doc._.relations = [(doc.ents[0], doc.ents[1], "sibling")] if number < 11 else []
        doc.user_data["slmre.id"] = f"train-{number}"
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "corpus.spacy")
    return tmp_path / "corpus.spacy"


LABELS = Counter({"sibling": 11, "no_relation": 389})


def test_debug_data_counts_all_pairs(corpus: Path) -> None:
    result = CliRunner().invoke(slmre_cli, ["debug-data", str(corpus), "--json"])
    counts = json.loads(result.output)["corpora"]["corpus"]
    assert (counts["instances"], counts["positives"], counts["negatives"]) == (400, 11, 389)
    assert counts["labels"] == LABELS and counts["ceiling"] == 1.0


@pytest.mark.parametrize(("mirror", "expected"), [("sibling", ["sibling"] * 2), ("younger", ["sibling", "younger"])])
def test_what_a_label_implies_in_the_other_direction_is_learned_and_counted(
    corpus: Path, mirror: str, expected: list[str]
) -> None:
    labels = [{"name": "sibling", "symmetric": True}]
    if mirror == "younger":
        labels = [{"name": "sibling", "inverse": "younger"}, {"name": "younger"}]
    schema = LabelSchema.from_any({"labels": labels})
    example = next(iter(relation_corpus(corpus)(spacy.blank("en"))))
    training = make_training_instances([example], EntityPairs(), schema, "relations")
    counted = [pair.gold for pair in make_evaluation_pairs(example, 0, schema) if pair.gold]
    learned = [one.label for one in training.instances if one.label != "no_relation"]
    assert learned == [label for gold in counted for label in gold] == expected
    assert len(training.instances) == 20 and training.n_gold == 2
    # A pair whose labels are unknown stays unknown.
    doc = people(spacy.blank("en"))
    doc._.relation_pairs = [(doc.ents[0], doc.ents[1], "sibling"), (doc.ents[1], doc.ents[2], "no_relation")]
    assert gold_pairs(doc, mirrors=schema.mirrors).positives("no_relation") == {((0, 3, 4, 6), "sibling")}


@pytest.mark.parametrize("candidates", ["EntityPairs", "GivenPairs"])
def test_spacy_train_learns_all_pairs(corpus: Path, candidates: str, tiny_model: dict) -> None:
    block = {"@misc": f"spacy-slmre.{candidates}.v1"}
    config = {"model": tiny_model, "labels": ["sibling"], "candidates": block}
    pipe = spacy.blank("en").add_pipe("slm_relations", config=config)
    examples = relation_corpus(corpus)(spacy.blank("en"))
    training = make_training_instances(examples, pipe.candidates, pipe.schema, pipe.attr)
    assert Counter(instance.label for instance in training.instances) == LABELS


def test_tune_learns_all_pairs(corpus: Path, tmp_path: Path) -> None:
    overrides = {"corpora.train.path": str(corpus), "corpora.dev.path": str(corpus)}
    config = resolve_config(parse_config(CONFIG, overrides), "own.cfg")
    (found,) = read_sets(config)
    assert Counter(instance.label for instance in found.train) == LABELS
    assert found.schema.negative_label == "no_relation"


def test_evaluate_counts_all_pairs(corpus: Path) -> None:
    gold = read_gold(corpus)
    pairs = list(gold.pairs(gold.schema))
    assert Counter(pair.gold for pair in pairs) == {("sibling",): 11, (): 389}
    assert gold.schema.names == ("sibling", "no_relation")


def test_calibrate_counts_all_pairs(corpus: Path, tiny_model: dict) -> None:
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("slm_relations", config={"model": tiny_model, "labels": ["sibling"]})
    assert calibrate(pipe, relation_corpus(corpus)(nlp))["pairs"] == 400


def test_a_mixture_counts_all_pairs(tmp_path: Path) -> None:
    install_extensions()
    nlp = spacy.blank("en")
    docs = [people(nlp) for _ in range(3)]
    for doc in docs:
        doc._.relations = [(doc.ents[0], doc.ents[1], "sibling_of")]
        doc.user_data["slmre.format"] = "demo"
    (tmp_path / "demo").mkdir()
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "demo" / "train.spacy")
    manifest = make_manifest(Mixture(name="m", benchmarks=("demo",), caps={"train": 50}), tmp_path)
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    assert manifest["splits"]["train"]["pairs"] == 50
    examples = list(mixture_corpus(tmp_path / "m.json", "train", tmp_path)(nlp))
    assert sorted(len(example.predicted._.relation_candidates) for example in examples) == [10, 20, 20]
    assert sorted(len(gold_pairs(example.reference).known_pairs()) for example in examples) == [10, 20, 20]


def test_predictions_on_unknown_pairs_are_not_counted(blank: Callable[[], Language], tiny_model: dict) -> None:
    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": tiny_model, "labels": ["sibling"]})
    reference, predicted = people(nlp), people(nlp)
    ann, bo, cy, *_ = reference.ents
    reference._.relation_pairs = [(ann, bo, "sibling"), (bo, ann, "no_relation")]
    ann, bo, cy, *_ = predicted.ents
    predicted._.relations = [(ann, bo, "sibling"), (ann, cy, "sibling")]
    scores = nlp.get_pipe("slm_relations").score([Example(predicted, reference)])
    assert scores["rel_micro_p"] == scores["rel_micro_r"] == 1.0
    predicted._.relations = [(ann, bo, "sibling"), (bo, ann, "sibling")]
    assert nlp.get_pipe("slm_relations").score([Example(predicted, reference)])["rel_micro_p"] == 0.5


def test_evaluate_leaves_unknown_pairs_out(tmp_path: Path) -> None:
    from spacy_slmre.candidates import EntityPairs

    install_extensions()
    nlp = spacy.blank("en")
    doc = people(nlp)
    doc._.relation_pairs = [(doc.ents[0], doc.ents[1], "sibling")]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "corpus.spacy")
    gold = read_gold(tmp_path / "corpus.spacy")
    proposed = EntityPairs()(gold.examples[0].predicted, None).pairs
    assert len(proposed) == 20
    assert [pair.gold for pair in make_evaluation_pairs(gold.examples[0], 0, gold.schema, proposed)] == [("sibling",)]


@pytest.mark.parametrize(
    ("rows", "ceiling"),
    [
        ([(0, 1, "a"), (0, 1, "a"), (1, 2, "b"), (2, 3, "b"), (3, 4, "b"), (1, 0, "a"), (2, 0, "a")], 1.0),
        ([(0, n % 4 + 1, "a") for n in range(4)] + [(0, 1, "a")], 1.0),
        ([(0, 1, "a"), (0, 1, "b"), (0, 1, "a"), (1, 2, "a"), (2, 3, "a"), (2, 3, "a")], 0.75),
    ],
)
def test_duplicate_rows_do_not_lower_the_ceiling(rows: list[tuple[int, int, str]], ceiling: float) -> None:
    install_extensions()
    doc = people(spacy.blank("en"))
    doc._.relation_pairs = doc._.relations = [(doc.ents[head], doc.ents[tail], label) for head, tail, label in rows]
    summary = Summary()
    summary.add(doc)
    assert summary.positives == len(rows) and summary.ceiling == ceiling


# -- use_gold_pairs --------------------------------------------------------------------------------------


@pytest.fixture
def make(tiny_model: dict) -> Callable[..., Language]:
    def make(nlp: Language, **config: object) -> Language:
        nlp.add_pipe("slm_relations", config={"model": {**tiny_model, "lora_rank": 2}, **config})
        return nlp

    return make


def without_entities(nlp: Language, text: str, relations: list[tuple[int, int, str]]) -> Example:
    """Make an example whose predicted side is only the text, as spaCy's own corpus reader does."""
    with nlp.select_pipes(enable=["sentencizer", "entity_ruler"]):
        reference = nlp(text)
    reference._.relations = [(reference.ents[head], reference.ents[tail], label) for head, tail, label in relations]
    return Example(nlp.make_doc(text), reference)


def test_gold_pairs_are_learned_without_entities_and_raw_text_is_read_afterwards(
    blank: Callable[[], Language], make: Callable[..., Language]
) -> None:
    nlp = make(blank(), use_gold_pairs=True)
    example = without_entities(nlp, TEXTS[1], [(0, 1, "spouse")])
    component = nlp.get_pipe("slm_relations")
    optimizer = component.initialize(lambda: [example], nlp=nlp) or nlp.create_optimizer()
    assert component.labels == ("spouse", "no_relation")
    training = component.make_training_instances([example])
    assert [instance.label for instance in training.instances] == ["spouse", "no_relation"]
    losses: dict[str, float] = {}
    component.update([example], sgd=optimizer, losses=losses)
    assert losses["slm_relations"] > 0
    # A reader's pairs are scored, and in raw text those of its entities.
    given = nlp.make_doc(TEXTS[0])
    given._.relation_candidates = [(given[0:2], given[5:6])]
    assert nlp(given)._.relations_report["considered"] == 1
    assert nlp(TEXTS[0])._.relations_report["scored"] == 8


@pytest.mark.parametrize("factory", ["slm_relations", "rel_classifier"])
def test_training_without_candidates_is_a_warning_of_both_components(
    blank: Callable[[], Language], tiny_model: dict, tiny_classifier: dict, factory: str
) -> None:
    nlp = blank()
    model = tiny_model if factory == "slm_relations" else tiny_classifier
    component = nlp.add_pipe(factory, config={"model": model, "labels": ["spouse"]})
    example = without_entities(nlp, TEXTS[1], [(0, 1, "spouse")])
    with pytest.warns(
        UserWarning, match=f"{factory}: the training data has 1 relations, but .* proposes none"
    ) as caught:
        component.make_training_instances([example])
        component.make_training_instances([example])
    assert len(caught) == 1


def test_evaluation_without_candidates_names_the_command_for_gold_pairs(make: Callable[..., Language]) -> None:
    nlp = make(spacy.blank("en"), labels=["spouse"])
    ruler = spacy.blank("en")
    ruler.add_pipe("sentencizer")
    ruler.add_pipe("entity_ruler").add_patterns(PATTERNS)
    example = without_entities(ruler, TEXTS[1], [(0, 1, "spouse")])
    with (
        pytest.warns(UserWarning, match="proposes none of the annotated pairs.*spacy slmre evaluate"),
        pytest.warns(UserWarning, match="no component before this one finds entities"),
    ):
        assert nlp.evaluate([Example(nlp.make_doc(TEXTS[1]), example.reference)])["rel_micro_f"] == 0.0


def test_a_corpus_without_negatives_is_a_warning_everywhere(
    corpus: Path, tmp_path: Path, make: Callable[..., Language]
) -> None:
    nlp = spacy.blank("en")
    docs = list(DocBin().from_disk(corpus).get_docs(nlp.vocab))
    for doc in docs:
        doc._.relation_pairs = doc._.relations
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "positive.spacy")
    path = tmp_path / "positive.spacy"
    shown = " ".join(CliRunner().invoke(slmre_cli, ["debug-data", str(path)], env={"COLUMNS": "300"}).output.split())
    assert "there is no negative pair, so a model trained on it will predict a relation for every pair" in shown
    overrides = {"corpora.train.path": str(path), "corpora.dev.path": str(path)}
    config = resolve_config(parse_config(CONFIG, overrides), "own.cfg")
    logged: list[str] = []
    read_sets(config, logged.append)
    assert len(logged) == 1 and "the model will predict a relation for every pair" in logged[0]
    component = make(nlp).get_pipe("slm_relations")
    with pytest.warns(UserWarning, match="slm_relations: the training data has no negative pair"):
        component.initialize(lambda: relation_corpus(path)(nlp), nlp=nlp)
    # With a sample of negatives, or if every pair is said to have a relation, there is nothing to warn of.
    component = make(spacy.blank("en")).get_pipe("slm_relations")
    component.initialize(lambda: relation_corpus(path, negatives=2)(nlp), nlp=nlp)
    assert component.labels == ("sibling", "no_relation")
    component = make(spacy.blank("en"), negative_label=None).get_pipe("slm_relations")
    component.initialize(lambda: relation_corpus(path)(nlp), nlp=nlp)
    assert component.labels == ("sibling",)


def test_several_labels_that_mean_no_relation_are_refused() -> None:
    doc = spacy.blank("en")("Ann met Bo.")
    doc._.relation_pairs = [(doc[0:1], doc[2:3], label) for label in ("met", "NA", "other")]
    schema = collect_schema([doc], "NA")
    assert schema is not None and schema.names == ("met", "other", "NA") and schema.negative_label == "NA"
    with pytest.raises(ValueError, match='labels NA and other all usually mean "no relation"'):
        collect_schema([doc], "no_relation")
    doc._.relation_pairs = [(doc[0:1], doc[2:3], label) for label in ("met", "no_relation", "other")]
    with pytest.raises(ValueError, match='labels no_relation and other all usually mean "no relation"'):
        collect_schema([doc], "no_relation")


def labeled(*labels: str, **properties: dict) -> Doc:
    doc = spacy.blank("en")("Ann met Bo.")
    doc._.relation_pairs = [(doc[0:1], doc[2:3], label) for label in (*labels, "no_relation")]
    write_label_properties(doc, properties.get("inverse_of", {}), properties.get("iris", {}), properties.get("limits"))
    return doc


def test_labels_of_documents_keep_their_properties() -> None:
    given = LabelSchema.from_dict(
        {
            "labels": [
                {"name": "born in", "max_per_head": 1, "symmetric": False},
                {"name": "child", "inverse": "parent"},
                {"name": "parent", "max_per_tail": 2, "iri": "https://schema.org/parent"},
                {"name": "spouse", "symmetric": True},
            ]
        }
    )
    properties = {"inverse_of": given.inverse_of, "iris": given.iris, "limits": given.limits}
    # A document without properties contradicts nothing, and labels that do not occur are not added.
    docs = [labeled("spouse", "child", **properties), labeled("spouse", "born in"), labeled("parent", **properties)]
    assert collect_schema(docs[:1], "no_relation").names == ("child", "spouse", "no_relation")
    found = collect_schema(docs, "no_relation")
    assert found.names == given.names
    assert (found.inverse_of, found.mirrors) == (given.inverse_of, given.mirrors)
    assert (found.limits, found.iris) == (given.limits, given.iris)


def test_contradicting_properties_of_labels_are_not_used() -> None:
    docs = [
        labeled("met", "spouse", inverse_of={"met": "met", "spouse": "spouse"}, limits={"spouse": {"max_per_head": 1}}),
        labeled("met", "spouse", limits={"met": {"directions": 1}, "spouse": {"max_per_head": 2}}),
    ]
    with (
        pytest.warns(UserWarning, match='of the label "met", which are not used: symmetric'),
        pytest.warns(UserWarning, match='of the label "spouse", which are not used: max_per_head'),
    ):
        found = collect_schema(docs, "no_relation")
    assert [label.symmetric for label in found.labels] == [None, True, None] and not found.limits
    with pytest.warns(UserWarning, match="which are not used: inverse, symmetric"):
        found = collect_schema([docs[0], labeled("met", inverse_of={"met": "met by"})], "no_relation")
    assert found.mirrors == {"spouse": "spouse"}


def test_every_command_learns_the_properties_of_labels(tmp_path: Path, make: Callable[..., Language]) -> None:
    given = {"labels": [{"name": "spouse", "symmetric": True}, {"name": "teacher", "inverse": "student"}, "student"]}
    inverse_of = LabelSchema.from_dict(given).inverse_of
    source = tmp_path / "own.jsonl"
    entities = [{"start": start, "end": end} for start, end in ((0, 3), (8, 10), (15, 17))]
    sides = {"head": entities[0], "tail": entities[1]}
    row = {"text": "Ann met Bo and Cy.", "entities": entities, "inverse_of": inverse_of}
    relations = [{**sides, "label": label} for label in ("spouse", "student", "teacher")]
    source.write_text(json.dumps({**row, "relations": relations}))
    nlp = spacy.blank("en")
    component = make(nlp).get_pipe("slm_relations")
    component.initialize(lambda: relation_corpus(source)(nlp), nlp=nlp)
    config = parse_config(CONFIG, {"corpora.train.path": str(source), "corpora.dev.path": str(source)})
    (tuned,) = read_sets(resolve_config(config, "own.cfg"))
    assert CliRunner().invoke(slmre_cli, ["convert", str(source), "-o", str(tmp_path / "own.spacy")]).exit_code == 0
    for schema in (component.schema, tuned.schema, read_gold(tmp_path / "own.spacy").schema):
        assert schema.mirrors == {"spouse": "spouse", "student": "teacher", "teacher": "student"}


def test_labels_that_mean_no_relation_are_negative_for_every_command(tmp_path: Path) -> None:
    table, path = tmp_path / "own.csv", tmp_path / "own.spacy"
    rows = [f"{name} {label} Al.,{name},Al,{label}" for name in NAMES for label in ("met", "other", "no_relation")]
    table.write_text("\n".join(["text,entity1,entity2,relation", *rows]))
    runner, counts = CliRunner(), {"no_relation": 10, "met": 5}
    assert runner.invoke(slmre_cli, ["convert", str(table), "-o", str(path)]).exit_code == 0
    converted = json.loads((tmp_path / "own.summary.json").read_text())
    checked = json.loads(runner.invoke(slmre_cli, ["debug-data", str(path), "--json"]).output)["corpora"]["own"]
    for summary in (converted, checked):
        assert summary["positives"] == 5 and summary["labels"] == counts
    gold = read_gold(path)
    assert gold.schema.names == ("met", "no_relation")
    assert Counter(label for pair in gold.pairs(gold.schema) for label in pair.gold) == {"met": 5}
    for source in (table, path):
        config = parse_config(CONFIG, {"corpora.train.path": str(source), "corpora.dev.path": str(source)})
        (found,) = read_sets(resolve_config(config, "own.cfg"))
        assert Counter(instance.label for instance in found.train) == counts


def test_documents_without_annotation_are_unknown(corpus: Path, tiny_model: dict) -> None:
    nlp = spacy.blank("en")
    docs = list(DocBin().from_disk(corpus).get_docs(nlp.vocab))
    DocBin(docs=[*docs, people(nlp)], store_user_data=True).to_disk(corpus)
    read = [example.reference for example in relation_corpus(corpus)(nlp)]
    assert len(read[-1].ents) == 5 and not gold_pairs(read[-1]).known_pairs()
    test_debug_data_counts_all_pairs(corpus)
    test_evaluate_counts_all_pairs(corpus)
    pipe = spacy.blank("en").add_pipe("slm_relations", config={"model": tiny_model, "labels": ["sibling"]})
    with pytest.warns(UserWarning, match="1 training documents with entities annotate neither"):
        assert len(pipe.make_training_instances(relation_corpus(corpus)(nlp)).instances) == 400
    messages: list[str] = []
    overrides = {"corpora.train.path": str(corpus), "corpora.dev.path": str(corpus)}
    read_sets(resolve_config(parse_config(CONFIG, overrides), "own.cfg"), messages.append)
    assert "  2 documents with entities annotate neither relations nor pairs and are skipped" in messages


def test_no_relation_is_negative_under_any_schema(tiny_model: dict) -> None:
    install_extensions()
    config = {"model": tiny_model, "labels": ["sibling"], "negative_label": "unrelated"}
    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("slm_relations", config=config)
    doc = people(nlp)
    first, second, third = doc.ents[:3]
    doc._.relation_pairs = [(first, second, "sibling"), (second, third, "no_relation")]
    examples = [Example(people(nlp), doc)]
    training = make_training_instances(examples, pipe.candidates, pipe.schema, pipe.attr)
    assert [instance.label for instance in training.instances] == ["sibling", "unrelated"]
    assert [pair.gold for pair in make_evaluation_pairs(make_example(doc), 0, pipe.schema)] == [("sibling",), ()]
    pipe.set_annotations([examples[0].predicted], pipe.predict([examples[0].predicted]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no_relation is not an unknown label
        pipe.score(examples)


def make_example(doc: Doc) -> Example:
    """Return the document with its known pairs as candidates, and the document."""
    return Example(make_predicted(doc), doc)

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
import torch
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Optimizer

from spacy_slmre.relations import install_extensions
from tests.conftest import PATTERNS, TEXTS

GOLD = [
    (
        "Ann Lee was born in Rome. Her brother Bo Lee works for Red Mill in Warsaw.",
        [(0, 1, "born"), (2, 3, "employer")],
    ),
    ("Marie Curie married Pierre Curie.", [(0, 1, "spouse"), (1, 0, "spouse")]),
    ("Bo Lee was born in Warsaw.", [(0, 1, "born")]),
    ("Ada Byron knew Marie Curie.", []),
]
GIVEN = {"@misc": "spacy-slmre.GivenPairs.v1"}


def make_examples(nlp: Language) -> list[Example]:
    """Make examples in which all pairs without an annotation have no relation."""
    install_extensions()
    examples = []
    for text, relations in GOLD:
        with nlp.select_pipes(enable=["sentencizer", "entity_ruler"]):
            reference, predicted = nlp(text), nlp(text)
        ents = reference.ents
        reference._.relations = [(ents[head], ents[tail], label) for head, tail, label in relations]
        examples.append(Example(predicted, reference))
    return examples


@pytest.fixture
def make(blank: Callable[[], Language], tiny_classifier: dict) -> Callable[..., Language]:
    def make(**config: object) -> Language:
        nlp = blank()
        nlp.add_pipe("rel_classifier", config={"model": tiny_classifier, **config})
        return nlp

    return make


def initialize(nlp: Language, examples: list[Example]) -> Optimizer:
    optimizer = nlp.initialize(lambda: examples)
    nlp.get_pipe("entity_ruler").add_patterns(PATTERNS)  # initializing removes them
    return optimizer


def learn(nlp: Language, examples: list[Example], optimizer: Optimizer) -> None:
    """Train until the examples are predicted: how many steps that takes depends on the processor's arithmetic."""
    optimizer.learn_rate = 0.005
    for _ in range(20):
        for _ in range(15):
            nlp.update(examples, sgd=optimizer)
        if nlp.evaluate(examples)["rel_micro_f"] == 1.0:
            return
    pytest.fail("The examples were not learned in 300 steps.")


def fit(nlp: Language) -> None:
    examples = make_examples(nlp)
    learn(nlp, examples, initialize(nlp, examples))


@pytest.fixture
def trained(make: Callable[..., Language]) -> Language:
    nlp = make()
    fit(nlp)
    return nlp


def found(doc: Doc) -> list[tuple]:
    return sorted((r.head.text, r.label, r.tail.text, r.score) for r in doc._.relations)


def expected_from(doc: Doc) -> list[tuple]:
    """Return `found(doc)` with approximate scores: the last digits depend on where matrices are in memory."""
    return [(*item[:3], pytest.approx(item[3], abs=1e-4)) for item in found(doc)]


def test_adding_the_component_loads_nothing() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("rel_classifier")
    assert component.is_trainable and component.is_resizable and not component.model.is_loaded
    problems = nlp.analyze_pipes()
    assert problems["summary"]["rel_classifier"]["assigns"] == ["doc._.relations"]
    assert problems["problems"]["rel_classifier"] == ["doc.ents"]


def test_prediction_before_training_raises_an_error(make: Callable[..., Language]) -> None:
    with pytest.raises(ValueError, match="no label head yet: train it"):
        make()("Ann Lee was born in Rome.")


def test_component_learns_its_training_examples(trained: Language) -> None:
    assert trained.get_pipe("rel_classifier").labels == ("born", "employer", "spouse", "no_relation")
    for text, relations in GOLD:
        doc = trained(text)
        expected = [(doc.ents[head].text, label, doc.ents[tail].text) for head, tail, label in relations]
        assert [item[:3] for item in found(doc)] == sorted(expected)
    scores = trained.evaluate(make_examples(trained))
    assert scores["rel_micro_f"] == 1.0 and scores["rel_candidate_recall"] == 1.0
    assert [found(doc) for doc in trained.pipe(TEXTS)] == [expected_from(trained(text)) for text in TEXTS]


def test_trained_component_survives_serialization(
    trained: Language, make: Callable[..., Language], tmp_path: Path
) -> None:
    expected = [expected_from(doc) for doc in trained.pipe(TEXTS)]
    trained.to_disk(tmp_path / "pipeline")
    assert [found(doc) for doc in spacy.load(tmp_path / "pipeline").pipe(TEXTS)] == expected
    copy = make().from_bytes(trained.to_bytes())
    copy.get_pipe("entity_ruler").add_patterns(PATTERNS)
    assert [found(doc) for doc in copy.pipe(TEXTS)] == expected
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".pt", ".pkl", ".pth")]
    assert [found(doc) for doc in trained.pipe(TEXTS, n_process=2)] == expected


def test_training_can_be_resumed(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path / "pipeline")
    nlp = spacy.load(tmp_path / "pipeline")
    # Exact comparison, because scores of learned examples change little.
    before = [relation.score for relation in nlp(TEXTS[0])._.relations]
    nlp.update(make_examples(nlp), sgd=nlp.resume_training())
    assert [relation.score for relation in nlp(TEXTS[0])._.relations] != before


def test_added_label_is_learned(trained: Language) -> None:
    component = trained.get_pipe("rel_classifier")
    before = [item[:3] for item in found(trained(TEXTS[0]))]
    torch.manual_seed(0)  # the new label begins with random weights
    assert component.add_label("knows") == 1 and component.add_label("knows") == 0
    assert [item[:3] for item in found(trained(TEXTS[0]))] == before
    examples = make_examples(trained)
    last = examples[-1].reference
    last._.relations = [(last.ents[0], last.ents[1], "knows")]
    learn(trained, examples, trained.resume_training())
    assert [item[:3] for item in found(trained(GOLD[-1][0]))] == [("Ada Byron", "knows", "Marie Curie")]


def test_labels_are_read_from_label_data(make: Callable[..., Language]) -> None:
    nlp = make()
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    saved = json.loads(json.dumps(nlp.get_pipe("rel_classifier").label_data))
    again = make()
    again.get_pipe("rel_classifier").initialize(lambda: examples, nlp=again, labels=saved)
    assert again.get_pipe("rel_classifier").labels == nlp.get_pipe("rel_classifier").labels
    with pytest.raises(ValueError, match="labels that the component does not have: employer"):
        make().get_pipe("rel_classifier").initialize(lambda: examples, labels=["born"])


def test_examples_without_two_labels_raise_an_error(make: Callable[..., Language]) -> None:
    nlp = make()
    examples, one, unrelated = make_examples(nlp)[:1], make_examples(nlp)[2:3], make_examples(nlp)[3:]
    bare = [Example(nlp.make_doc(examples[0].text), examples[0].reference)]
    with (
        pytest.raises(ValueError, match="no labeled pair"),
        pytest.warns(UserWarning, match="proposes none of their pairs"),
    ):
        nlp.initialize(lambda: bare)
    one[0].reference._.relation_pairs = one[0].reference._.relations
    with (
        pytest.raises(ValueError, match=r"only one label \(born\)"),
        pytest.warns(UserWarning, match="no negative pair"),
    ):
        make(candidates=GIVEN).initialize(lambda: [_given(example) for example in one])
    with pytest.raises(ValueError, match="no labeled pair"):
        make(candidates=GIVEN).initialize(lambda: unrelated)


def _given(example: Example) -> Example:
    example.predicted._.relation_candidates = [
        (example.predicted[r.head.start : r.head.end], example.predicted[r.tail.start : r.tail.end])
        for r in example.reference._.relations
    ]
    return example


def test_unannotated_pairs_are_unknown_if_pairs_are_annotated(make: Callable[..., Language]) -> None:
    nlp = make()
    examples = make_examples(nlp)
    for example in examples:
        # If pairs are annotated, all others are unknown, not negative.
        example.reference._.relation_pairs = example.reference._.relations
    with pytest.warns(UserWarning, match="will predict a relation for every pair.*negatives = RATIO"):
        nlp.initialize(lambda: examples)
    assert nlp.get_pipe("rel_classifier").labels == ("born", "employer", "spouse")


def test_unknown_gold_labels_raise_a_warning(trained: Language) -> None:
    examples = make_examples(trained)
    reference = examples[-1].reference
    reference._.relations = [(reference.ents[0], reference.ents[1], "muse")]
    with pytest.warns(UserWarning, match="can never predict: muse"):
        scores = trained.evaluate(examples)
    assert scores["rel_micro_r"] < 1.0


def test_loss_that_is_nan_raises_an_error(trained: Language) -> None:
    with torch.no_grad():
        trained.get_pipe("rel_classifier").model.network.head.output.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"loss of update \d+ is nan \(documents: \"Ann Lee was born"):
        trained.update(make_examples(trained), sgd=trained.resume_training())


def test_long_training_contexts_are_counted(make: Callable[..., Language]) -> None:
    nlp = make(max_context_tokens=12)
    examples = make_examples(nlp)
    with pytest.warns(UserWarning, match="truncated around their arguments"):
        optimizer = nlp.initialize(lambda: examples)
        nlp.update(examples, sgd=optimizer)


def test_negative_rate_and_class_weights(make: Callable[..., Language]) -> None:
    nlp = make(negative_rate=0.0, class_weights="balanced")
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    component = nlp.get_pipe("rel_classifier")
    seen: list = []
    update = component.model.update
    component.model.update = lambda instances, *args, **kwargs: (  # type: ignore[method-assign]
        seen.append((instances, kwargs["weights"])) or update(instances, *args, **kwargs)
    )
    nlp.update(examples)
    ((instances, weights),) = seen
    assert {instance.label for instance in instances} == {"born", "employer", "spouse"}
    by_label = dict(zip((instance.label for instance in instances), weights, strict=True))
    assert by_label["employer"] == pytest.approx(2 * by_label["born"])
    unweighted = make().get_pipe("rel_classifier").from_bytes(component.to_bytes())
    assert component._label_weights and not unweighted._label_weights
    with pytest.raises(ValueError, match='must be one of null, "balanced"'):
        make(class_weights="rare")
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        make(negative_rate=2.0)


@pytest.mark.parametrize("one", ["rel_classifier", "slm_relations"])
def test_both_components_have_the_same_settings(
    blank: Callable[[], Language], tiny_model: dict, tiny_classifier: dict, one: str
) -> None:
    blocks = {
        "rel_classifier": {"factory": "rel_classifier", "model": tiny_classifier},
        "slm_relations": {"factory": "slm_relations", "model": tiny_model},
    }
    block = {
        "labels": ["born", "employer", "spouse"],
        "threshold": 0.01,
        "label_thresholds": {"spouse": 0.0},
        "candidates": {"@misc": "spacy-slmre.EntityPairs.v1", "max_distance": 20},
    }
    nlp = blank()
    config = {**block, **blocks[one]}
    nlp.add_pipe(config.pop("factory"), name="relations", config=config)
    examples = make_examples(nlp)
    initialize(nlp, examples)
    doc = nlp(TEXTS[0])
    assert doc._.relations_report["scored"] == 8
    assert {r.label for r in doc._.relations} <= {"born", "employer", "spouse"}
    assert set(nlp.evaluate(examples)) >= {"rel_micro_f", "rel_macro_f", "rel_per_type", "rel_candidate_recall"}
    assert nlp.get_pipe_meta("relations").default_score_weights["rel_micro_f"] == 1.0


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    from spacy_slmre.corpus.conversion import convert
    from spacy_slmre.study.benchmarks.card import get_benchmark

    for split in ("train", "dev"):
        convert(
            get_benchmark("demo"), Path("assets/demo_corpus") / f"{split}.txt", tmp_path / f"{split}.spacy", split=split
        )
    yield tmp_path


def config_overrides(corpus: Path, tiny_encoder: Path) -> dict:
    return {
        "paths.train": str(corpus / "train.spacy"),
        "paths.dev": str(corpus / "dev.spacy"),
        "components.rel_classifier.model.base": str(tiny_encoder),
        "training.max_epochs": 2,
        "training.eval_frequency": 2,
        "training.logger.progress_bar": False,
    }


def test_spacy_train_is_repeatable_and_loadable(corpus: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    overrides = config_overrides(corpus, tiny_encoder)
    for run in ("one", "two"):
        train("configs/rel_classifier_cpu.cfg", tmp_path / run, overrides=overrides)
    weights = [
        (tmp_path / run / "model-last" / "rel_classifier" / "model" / "model.safetensors").read_bytes()
        for run in ("one", "two")
    ]
    assert weights[0] == weights[1]
    best = spacy.load(tmp_path / "one" / "model-best")
    assert best.get_pipe("rel_classifier").labels[-1] == "no_relation"


def test_checkpoints_of_interrupted_training_are_loadable(
    corpus: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spacy_slmre.models.encoder.model import EncoderClassifier

    update, updates = EncoderClassifier.update, []

    def interrupted(self: EncoderClassifier, *args: object, **kwargs: object) -> float:
        updates.append(1)
        if len(updates) == 5:
            raise KeyboardInterrupt
        return update(self, *args, **kwargs)

    monkeypatch.setattr(EncoderClassifier, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("configs/rel_classifier_cpu.cfg", tmp_path / "out", overrides=config_overrides(corpus, tiny_encoder))
    for checkpoint in ("model-best", "model-last"):
        nlp = spacy.load(tmp_path / "out" / checkpoint)
        assert nlp.get_pipe("rel_classifier").model.load().is_loaded

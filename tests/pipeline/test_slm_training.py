"""Training `slm_relations` with `nlp.update` and `spacy train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.cli.train import train
from spacy.language import Language

from spacy_slmre.corpus.conversion import convert
from spacy_slmre.study.benchmarks.card import get_benchmark
from tests.conftest import PATTERNS, TEXTS
from tests.pipeline.test_rel_classifier import GOLD, expected_from, fit, found, initialize, make_examples

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(blank: Callable[[], Language], tiny_model: dict) -> Callable[[], Language]:
    def make() -> Language:
        nlp = blank()
        nlp.add_pipe("slm_relations", config={"model": {**tiny_model, "lora_rank": 8}})
        return nlp

    return make


@pytest.fixture
def trained(make: Callable[[], Language]) -> Language:
    nlp = make()
    fit(nlp)
    return nlp


def test_component_learns_its_training_examples(trained: Language) -> None:
    assert trained.get_pipe("slm_relations").is_trainable
    for text, relations in GOLD:
        doc = trained(text)
        expected = [(doc.ents[head].text, label, doc.ents[tail].text) for head, tail, label in relations]
        assert [item[:3] for item in found(doc)] == sorted(expected)


def test_scores_are_up_to_date_after_each_update(make: Callable[[], Language]) -> None:
    nlp = make()
    examples = make_examples(nlp)
    optimizer = initialize(nlp, examples)
    pipe = nlp.get_pipe("slm_relations")
    losses = []
    for _ in range(3):
        assert nlp(TEXTS[0])._.relations_report["scored"] == 8  # computes and caches the prefix
        by_pipe: dict[str, float] = {}
        nlp.update(examples, sgd=optimizer, losses=by_pipe)
        losses.append(by_pipe["slm_relations"])
    # The cached prefix belongs to the current weights.
    cached = [pipe.model.log_probs([instance], pipe.schema) for instance in _instances(nlp)]
    pipe.model.clear_cache()
    fresh = [pipe.model.log_probs([instance], pipe.schema) for instance in _instances(nlp)]
    assert all((one == other).all() for one, other in zip(cached, fresh, strict=True))
    assert losses[-1] < losses[0]


def _instances(nlp: Language) -> list:
    from spacy_slmre.pipeline.examples import make_training_instances

    pipe = nlp.get_pipe("slm_relations")
    return make_training_instances(make_examples(nlp), pipe.candidates, pipe.schema, pipe.attr).instances


def test_trained_component_survives_serialization(
    trained: Language, make: Callable[[], Language], tmp_path: Path
) -> None:
    expected = [expected_from(doc) for doc in trained.pipe(TEXTS)]
    trained.to_disk(tmp_path)
    assert [found(doc) for doc in spacy.load(tmp_path).pipe(TEXTS)] == expected
    copy = make().from_bytes(trained.to_bytes())
    copy.get_pipe("entity_ruler").add_patterns(PATTERNS)
    assert [found(doc) for doc in copy.pipe(TEXTS)] == expected


def test_training_can_be_resumed(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path)
    nlp = spacy.load(tmp_path)
    before = nlp.get_pipe("slm_relations").model.adapter.weights
    nlp.update(make_examples(nlp), sgd=nlp.resume_training())
    nlp.to_disk(tmp_path)
    assert nlp.get_pipe("slm_relations").model.adapter.weights != before


def test_spacy_train_saves_an_adapter(tiny_base: Path, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        source = ROOT / "assets" / "demo_corpus" / f"{split}.txt"
        convert(get_benchmark("demo"), source, tmp_path / f"{split}.spacy", split=split)
    overrides = {
        "paths.train": str(tmp_path / "train.spacy"),
        "paths.dev": str(tmp_path / "dev.spacy"),
        "components.slm_relations.model.base": str(tiny_base),
        "components.slm_relations.model.quantization": None,
        "components.slm_relations.model.dtype": "float32",
        "training.max_epochs": 0,
        "training.max_steps": 4,
        "training.eval_frequency": 2,
        "training.logger.progress_bar": False,
    }
    train(ROOT / "configs" / "slm_relations_cpu.cfg", tmp_path / "out", overrides=overrides)
    nlp = spacy.load(tmp_path / "out" / "model-last")
    pipe = nlp.get_pipe("slm_relations")
    assert pipe.labels[-1] == "no_relation" and pipe.model.adapter is not None
    assert pipe.model.adapter.record.schema == pipe.schema

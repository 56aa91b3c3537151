"""Saving and loading pipelines with `slm_relations`."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from peft import LoraConfig, get_peft_model
from spacy.language import Language

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import RECORD_FILE, AdapterRecord
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.prompts import PromptStyle
from spacy_slmre.schema import LabelSchema
from tests.conftest import TEXTS
from tests.pipeline.test_slm_relations import LABELS, found, nlp, scores

__all__ = ["nlp"]  # a fixture


def assert_same(one: Language, other: Language) -> None:
    for a, b in zip(one.pipe(TEXTS), other.pipe(TEXTS), strict=True):
        assert sorted(found(a)) == sorted(found(b))
        assert scores(a) == pytest.approx(scores(b), abs=1e-5)


@pytest.mark.parametrize("way", ["disk", "bytes"])
@pytest.mark.parametrize("weights", ["reference", "embed"])
def test_saved_pipeline_predicts_the_same(nlp: Language, tmp_path: Path, monkeypatch, way: str, weights: str) -> None:
    monkeypatch.setenv("SPACY_SLMRE_CACHE", str(tmp_path / "cache"))
    component = nlp.get_pipe("slm_relations")
    component.weights = weights
    component.add_label("married_to")
    component.threshold = 0.2
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    restored = again.get_pipe("slm_relations")
    if way == "bytes":
        again.get_pipe("slm_relations").add_label("forgotten")
        assert restored.from_bytes(component.to_bytes()) is restored
    assert restored.labels == component.labels and restored.threshold == 0.2
    assert (restored.model.folder is not None) == (weights == "embed")
    assert_same(nlp, again)


def test_embedded_model_does_not_need_its_base(
    blank: Callable[[], Language], tiny_model: dict, tmp_path: Path, tiny_base: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = {"model": {**tiny_model, "base": str(base)}, "labels": LABELS, "weights": "embed"}
    nlp = blank()
    nlp.add_pipe("slm_relations", config=config)
    list(nlp.pipe(TEXTS))
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(base)
    assert_same(nlp, spacy.load(tmp_path / "pipeline"))


def test_embedded_model_is_saved_in_4_bits_if_it_runs_in_4_bits(
    blank: Callable[[], Language], tiny_model: dict, tmp_path: Path
) -> None:
    nlp = blank()
    model = {**tiny_model, "quantization": "nf4"}
    config = {"model": model, "labels": LABELS, "negative_label": None, "weights": "embed"}
    nlp.add_pipe("slm_relations", config=config)
    list(nlp.pipe(TEXTS))
    nlp.to_disk(tmp_path / "pipeline")
    base = tmp_path / "pipeline" / "slm_relations" / "model" / "base"
    assert "bnb_4bit_quant_type" in (base / "config.json").read_text()
    assert_same(nlp, spacy.load(tmp_path / "pipeline"))


def test_base_with_other_weights_raises_an_error(nlp: Language, tmp_path: Path, tiny_base: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    other = shutil.copytree(tiny_base, tmp_path / "other")
    base = {"components": {"slm_relations": {"model": {"base": str(other)}}}}
    assert_same(nlp, spacy.load(tmp_path / "pipeline", config=base))
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-500:] = bytes(500)
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="saved with other weights"):
        spacy.load(tmp_path / "pipeline", config=base)("Ann Lee met Bo Lee.")


def test_config_changed_after_saving_takes_precedence(nlp: Language, tmp_path: Path) -> None:
    component = nlp.get_pipe("slm_relations")
    component.threshold, component.temperature = 0.25, 2.0
    component.set_schema(["knows", "sibling"])
    nlp.to_disk(tmp_path)
    saved = spacy.load(tmp_path).get_pipe("slm_relations")
    assert (saved.threshold, saved.temperature) == (0.25, 2.0) and saved.labels[0] == "knows"
    config = {"components": {"slm_relations": {"threshold": 0.75, "labels": ["employer"]}}}
    changed = spacy.load(tmp_path, config=config).get_pipe("slm_relations")
    assert (changed.threshold, changed.temperature) == (0.75, 2.0) and changed.labels == ("employer",)


def test_saving_to_the_same_folder_keeps_the_embedded_model(nlp: Language, tmp_path: Path) -> None:
    nlp.get_pipe("slm_relations").weights = "embed"
    nlp.to_disk(tmp_path / "pipeline")
    config = {"components": {"slm_relations": {"weights": "embed"}}}
    again = spacy.load(tmp_path / "pipeline", config=config)
    again.to_disk(tmp_path / "pipeline")
    assert_same(nlp, spacy.load(tmp_path / "pipeline", config=config))


def test_labels_are_kept_without_their_file(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"labels": LABELS, "negative_label": None}))
    nlp = blank()
    config = {"model": tiny_model, "schema": str(file)}
    nlp.add_pipe("slm_relations", config=config)
    nlp.to_disk(tmp_path / "pipeline")
    file.unlink()
    again = spacy.load(tmp_path / "pipeline")
    assert again.get_pipe("slm_relations").labels == tuple(LABELS)
    assert_same(nlp, again)
    # In a new pipeline, the missing file raises an error before the first document.
    missing = spacy.blank("en")
    missing.add_pipe("slm_relations", config=config)
    with pytest.raises(ValueError, match=r"schema\.json cannot be read"):
        missing("Ann Lee met Bo Lee.")


def test_adapter_is_kept_without_its_folder(blank: Callable[[], Language], tiny_model: dict, tmp_path: Path) -> None:
    settings = {name: value for name, value in tiny_model.items() if not name.startswith("@")}
    lm = make_small_lm(**settings).load()
    folder = tmp_path / "adapter"
    get_peft_model(lm.network, LoraConfig(r=2, init_lora_weights=False)).save_pretrained(folder)
    tuned = LabelSchema.from_labels(LABELS, None)
    record = AdapterRecord(lm.identity(), PromptStyle(definitions=False), {"": tuned})
    (folder / RECORD_FILE).write_text(json.dumps(record.to_dict()))

    nlp = blank()
    nlp.add_pipe("slm_relations", config={"model": {**tiny_model, "adapter": str(folder)}})
    assert nlp.get_pipe("slm_relations").labels == tuple(LABELS)
    nlp.to_disk(tmp_path / "pipeline")
    folder.rename(tmp_path / "moved")
    again = spacy.load(tmp_path / "pipeline")
    assert again.get_pipe("slm_relations").labels == tuple(LABELS)
    assert_same(nlp, again)
    # Settings that were changed after saving take effect.
    other = {"components": {"slm_relations": {"model": {"adapter": str(tmp_path / "nowhere")}}}}
    with pytest.raises(ModelError, match="no such folder"):
        spacy.load(tmp_path / "pipeline", config=other)("Ann Lee met Bo Lee.")
    other = {"components": {"slm_relations": {"model": {"quantization": "nf4"}}}}
    assert (
        spacy.load(tmp_path / "pipeline", config=other).get_pipe("slm_relations").model.settings.quantization == "nf4"
    )
    # Labels with other wordings than in tuning raise an error.
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"labels": [{"name": "sibling", "wording": "kin"}, "employer"]}))
    wrong = blank()
    reference = str(schema)
    model = {**tiny_model, "adapter": str(tmp_path / "moved")}
    wrong.add_pipe("slm_relations", config={"model": model, "schema": reference})
    with pytest.raises(ValueError, match='"sibling" is worded "kin"'):
        wrong("Ann Lee met Bo Lee.")


def test_damaged_pipeline_folder_raises_an_error(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path)
    (tmp_path / "slm_relations" / "model" / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json:1: the file is damaged"):
        spacy.load(tmp_path)


def test_pickle_does_not_contain_weights(nlp: Language) -> None:
    component = nlp.get_pipe("slm_relations")
    list(nlp.pipe(TEXTS))
    data = pickle.dumps(component)
    assert len(data) < 100_000
    doc = blank_doc = nlp.make_doc(TEXTS[0])
    for _, pipe in nlp.pipeline[:-1]:
        doc = pipe(doc)
    assert found(pickle.loads(data)(blank_doc)) == found(nlp(TEXTS[0]))

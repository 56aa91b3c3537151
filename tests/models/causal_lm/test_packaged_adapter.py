"""The shipped adapter for everyday relations: its files, and when it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load

from spacy_slmre.models.base import ModelError
from spacy_slmre.models.causal_lm.adapter import PACKAGED_ADAPTER, Adapter
from spacy_slmre.models.causal_lm.model import make_small_lm
from spacy_slmre.models.hub import PACKAGED_BASE
from spacy_slmre.schema import LabelSchema
from spacy_slmre.study.benchmarks.card import all_benchmarks


def test_it_is_used_on_the_packaged_base_only(tiny_base: Path) -> None:
    assert make_small_lm().adapter == make_small_lm(base=PACKAGED_BASE).adapter is not None
    assert make_small_lm().schema == LabelSchema.general()
    assert make_small_lm(base=str(tiny_base)).adapter is None
    assert make_small_lm(adapter=None).adapter is None
    assert make_small_lm(adapter=None).resolved.base == PACKAGED_BASE


def test_another_prompt_style_requires_a_model_without_it() -> None:
    with pytest.raises(ModelError, match=r"model\.definitions conflicts with .* model\.adapter = null"):
        make_small_lm(definitions=False).load()
    assert make_small_lm(definitions=False, adapter=None).style.definitions is False


def test_labels_of_its_schema_keep_their_definitions() -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("slm_relations", config={"labels": ["spouse", "rival"]})
    known, new, _ = component.schema.labels
    assert known == next(label for label in LabelSchema.general().labels if label.name == "spouse")
    assert new.wording == "rival" and not new.definition


def test_it_is_small_and_its_card_names_the_training_data() -> None:
    adapter = Adapter.from_folder(PACKAGED_ADAPTER)
    assert len(adapter.weights) <= 12_000_000
    assert {tensor.dtype for tensor in load(adapter.weights).values()} == {torch.bfloat16}
    card = (PACKAGED_ADAPTER / "README.md").read_text(encoding="utf-8")
    run = json.loads((PACKAGED_ADAPTER / "run.json").read_text(encoding="utf-8"))
    assert run["key"]["base"]["fingerprint"] == adapter.record.base.fingerprint
    for name in ("re_docred", "semeval2010_task8", "demo"):
        benchmark = all_benchmarks()[name]
        assert benchmark.redistributable
        assert f"| {benchmark.title} | {benchmark.license} |" in card

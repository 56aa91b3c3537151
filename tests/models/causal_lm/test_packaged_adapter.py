"""The shipped adapter for any labels: its files, and when it is used."""

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

ROOT = Path(__file__).parents[3]


def test_it_is_used_on_the_packaged_base_only(tiny_base: Path) -> None:
    assert make_small_lm().adapter == make_small_lm(base=PACKAGED_BASE).adapter is not None
    assert make_small_lm().schema is None, "it is for any labels"
    assert make_small_lm(base=str(tiny_base)).adapter is None
    assert make_small_lm(adapter=None).adapter is None
    assert make_small_lm(adapter=None).resolved.base == PACKAGED_BASE


def test_it_takes_other_definitions_but_no_other_templates(tmp_path: Path) -> None:
    assert make_small_lm(definitions=False).style.definitions is False
    (tmp_path / "query.jinja").write_text("{{ head.text }} and {{ tail.text }}:")
    with pytest.raises(ModelError, match=r"model\.templates conflicts with .* model\.adapter = null"):
        make_small_lm(templates=str(tmp_path)).load()


def test_the_default_labels_are_the_general_schema() -> None:
    nlp = spacy.blank("en")
    assert nlp.add_pipe("slm_relations").schema == LabelSchema.general()
    component = nlp.add_pipe("slm_relations", name="own", config={"labels": ["spouse", "rival"], "attr": "own"})
    plain, *_ = component.schema.labels
    assert not plain.definition and not plain.types, "plain labels have no hidden definitions and types"


def test_its_threshold_is_the_default() -> None:
    component = spacy.blank("en").add_pipe("slm_relations")
    adapter = Adapter.from_folder(PACKAGED_ADAPTER)
    assert component.decoding.threshold == adapter.record.threshold
    assert 0 < adapter.record.threshold < 1


def test_it_is_small_and_its_card_names_the_training_data() -> None:
    adapter = Adapter.from_folder(PACKAGED_ADAPTER)
    assert len(adapter.weights) <= 25_000_000
    assert {tensor.dtype for tensor in load(adapter.weights).values()} == {torch.bfloat16}
    card = (PACKAGED_ADAPTER / "README.md").read_text(encoding="utf-8")
    run = json.loads((PACKAGED_ADAPTER / "run.json").read_text(encoding="utf-8"))
    assert run["key"]["base"]["fingerprint"] == adapter.record.base.fingerprint
    notice = (ROOT / "assets" / "universal_corpus" / "NOTICE").read_text(encoding="utf-8")
    trained = set(run["key"]["data"]["train"])
    for file in (ROOT / "assets" / "universal_corpus").glob("*.jsonl.xz"):
        name = file.name.split(".")[0]
        assert f"\n{name}\n" in notice and f"| {name} |" in card and name in trained
    # Sets that are only for testing, and those whose license is unclear, were not trained on.
    allowed = (
        "general_",
        "written_",
        "coreference_",
        "types_",
        *(file.name.split(".")[0] for file in (ROOT / "assets").glob("*/*.jsonl.xz")),
    )
    assert all(name.startswith(allowed) for name in trained)

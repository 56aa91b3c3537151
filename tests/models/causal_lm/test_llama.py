"""Plain Llama models are scored without transformers' model classes, and with the same results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_slmre.models.causal_lm.decoder import NetworkDecoder
from spacy_slmre.models.causal_lm.llama import LlamaDecoder
from spacy_slmre.models.causal_lm.lora import LoraSettings
from tests.models.causal_lm.reference import (
    INSTANCES,
    SCHEMA,
    TOLERANCE,
    instance_lists,
    make_model,
    schemas,
    separate_log_probs,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instances=instance_lists(), schema=schemas(), budget=st.sampled_from([1, 90, 1024]), cache=st.booleans())
def test_scores_equal_those_of_transformers(make_lm, tiny_base, instances, schema, budget, cache) -> None:
    lm = make_model(base=str(tiny_base), max_batch_tokens=budget, prefix_cache=cache)
    log_probs = lm.log_probs(instances, schema)
    assert isinstance(lm.decoder, LlamaDecoder)
    expected = make_lm().log_probs(instances, schema)
    np.testing.assert_allclose(log_probs, expected, atol=TOLERANCE)
    columns, best = lm.top_k(instances, schema, 2)
    np.testing.assert_allclose(best, np.take_along_axis(log_probs, columns, axis=1), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_adapter_and_4_bits_are_scored_like_in_transformers(q4_1_base: Path, tmp_path: Path, dtype) -> None:
    lm = make_model(base=str(q4_1_base))
    lm.begin_training(SCHEMA, LoraSettings(rank=4))
    with torch.no_grad():
        for parameter in lm.trainable_parameters():
            parameter.normal_(std=0.1)
    lm.export_adapter().to_folder(tmp_path / "adapter")
    lm = make_model(base=str(q4_1_base), adapter=str(tmp_path / "adapter"), dtype=dtype)
    log_probs = lm.log_probs(INSTANCES, SCHEMA)
    assert isinstance(lm.decoder, LlamaDecoder)
    expected = separate_log_probs(lm, INSTANCES, SCHEMA)  # uses the network
    assert isinstance(lm.decoder, NetworkDecoder)
    tolerance = TOLERANCE if dtype == "float32" else 0.3
    np.testing.assert_allclose(log_probs, expected, atol=tolerance)
    np.testing.assert_allclose(lm.log_probs(INSTANCES, SCHEMA), expected, atol=tolerance)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
    ],
)
def test_other_models_are_left_to_transformers(tiny_base: Path, tmp_path: Path, change: dict) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    lm = make_model(base=str(base))
    if "attention_bias" in change:  # whose weights are missing
        with pytest.raises(ValueError, match="are missing"):
            lm.load()
        return
    log_probs = lm.log_probs(INSTANCES[:2], SCHEMA)
    assert isinstance(lm.decoder, NetworkDecoder)
    np.testing.assert_allclose(log_probs, separate_log_probs(lm, INSTANCES[:2], SCHEMA), atol=TOLERANCE)

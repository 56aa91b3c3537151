"""Models with the same weights share them in memory, until one of them is trained."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import spacy

from spacy_slmre.instances import RelationInstance
from spacy_slmre.models.causal_lm.lora import LoraSettings
from spacy_slmre.models.causal_lm.model import SmallLM, make_small_lm
from spacy_slmre.schema import LabelSchema

SCHEMA = LabelSchema.from_labels(["spouse", "born in"])
OTHER = LabelSchema.from_labels(["employer", "author", "part of"])
INSTANCES = [RelationInstance.from_offsets("Ann met Bo.", (0, 3, "PER"), (8, 10, "PER"), "spouse")]


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters for any labels."""
    folders = []
    for seed in range(2):
        lm = make_small_lm(base=str(tiny_base), quantization=None, dtype="float32", device="cpu")
        lm.begin_training({}, LoraSettings(rank=2, alpha=4), seed=seed)
        for name, parameter in lm.network.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.05 + seed)
        folders.append(tmp_path_factory.mktemp("adapter") / "adapter")
        lm.export_adapter().to_folder(folders[-1])
    return folders


def load(base: Path, adapter: Path | None, **settings: object) -> SmallLM:
    options = {"quantization": None, "dtype": "float32", "device": "cpu", **settings}
    return make_small_lm(base=str(base), adapter=str(adapter) if adapter else None, **options).load()


def test_the_same_weights_are_shared_and_scores_are_equal(tiny_base: Path, adapters: list[Path]) -> None:
    one = load(tiny_base, adapters[0])
    expected = one.log_probs(INSTANCES, SCHEMA)
    two = load(tiny_base, adapters[0], max_batch_tokens=512)
    assert two.decoder is one.decoder
    two.log_probs(INSTANCES, OTHER)
    np.testing.assert_array_equal(one.log_probs(INSTANCES, SCHEMA), expected)
    np.testing.assert_array_equal(two.log_probs(INSTANCES, SCHEMA), expected)
    for other in (load(tiny_base, adapters[1]), load(tiny_base, None), load(tiny_base, adapters[0], dtype="bfloat16")):
        assert other.decoder is not one.decoder
    # The weights are released with the last model.
    decoder = weakref.ref(one.decoder)
    del one, two
    gc.collect()
    assert decoder() is None


def test_training_one_model_leaves_the_other_as_it_is(tiny_base: Path, adapters: list[Path]) -> None:
    one, two = (load(tiny_base, adapters[0]) for _ in range(2))
    expected = one.log_probs(INSTANCES, SCHEMA)
    two.update(INSTANCES, SCHEMA)
    for parameter in two.trainable_parameters():
        parameter.data.add_(0.1)
    two.clear_cache()
    assert two.decoder is not one.decoder
    assert not np.allclose(two.log_probs(INSTANCES, SCHEMA), expected)
    np.testing.assert_array_equal(one.log_probs(INSTANCES, SCHEMA), expected)


def test_a_network_that_may_be_changed_is_not_shared(tiny_base: Path, adapters: list[Path]) -> None:
    one, two = (load(tiny_base, adapters[0]) for _ in range(2))
    assert one.network is one.network and one.network is not two.network


def test_components_of_a_pipeline_share_their_model(tiny_model: dict, adapters: list[Path], tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    for name in ("slm_entities", "slm_coreference", "slm_relations"):
        nlp.add_pipe(name, config={"model": {**tiny_model, "adapter": str(adapters[0])}})
    nlp.to_disk(tmp_path / "pipeline")
    for pipeline in (nlp, spacy.load(tmp_path / "pipeline")):
        models = [pipe.model.load() for _, pipe in pipeline.pipeline]
        assert len({id(model.decoder) for model in models}) == 1

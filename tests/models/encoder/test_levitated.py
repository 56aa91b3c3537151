"""Packed pairs have the scores that they would have alone, and markers see what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_slmre.instances import Context, Mention, RelationInstance
from spacy_slmre.models.base import ModelError
from spacy_slmre.models.encoder.levitated import LevitatedMarkers
from spacy_slmre.models.encoder.model import EncoderClassifier
from spacy_slmre.models.encoder.settings import EncoderSettings
from spacy_slmre.schema import LabelSchema
from tests.models.encoder.architectures import save_encoder

SCHEMA = LabelSchema.from_labels(["born", "kin"])
CONTEXT = Context(
    "Ann has a sister Bo and works in Paris for the Red Mill",
    (Mention(0, 3, "PER"), Mention(17, 19, "PER"), Mention(33, 38, "LOC"), Mention(43, 55, "ORG")),
)
OTHER = Context("Bo was born in Rome", (Mention(0, 2, "PER"), Mention(15, 19, "LOC")))
PAIRS = [RelationInstance(CONTEXT, head, tail) for head in range(4) for tail in range(4) if head != tail]
INSTANCES = [*PAIRS, RelationInstance(OTHER, 0, 1)]


def make(base: Path, **settings: object) -> EncoderClassifier:
    options = {"dtype": "float32", "device": "cpu", "base": str(base), "markers": "levitated", **settings}
    model = EncoderClassifier(EncoderSettings(**options))
    model.start(SCHEMA.names, {"PER", "LOC"})
    with torch.no_grad():  # an untrained head gives all pairs nearly the same scores
        model.network.head.output.weight.mul_(50)
    return model


def test_pairs_of_a_context_have_the_scores_that_they_have_alone(tiny_encoder: Path) -> None:
    model = make(tiny_encoder)
    together = model.log_probs(INSTANCES, SCHEMA)
    alone = np.concatenate([model.log_probs([instance], SCHEMA) for instance in INSTANCES])
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-4)
    assert len(np.unique(together.round(3), axis=0)) > len(INSTANCES) / 2, "pairs have different scores"
    # A sequence that only fits some of the pairs repeats the context.
    model.settings = EncoderSettings(**{**vars(model.settings), "max_batch_tokens": 24})
    assert model.log_probs(INSTANCES, SCHEMA) == pytest.approx(alone, rel=1e-5, abs=1e-4)


def test_a_context_is_computed_once(tiny_encoder: Path) -> None:
    model = make(tiny_encoder)
    ((rows, (words, starts, markers, positions, mask, places)),) = model.markers.batches(INSTANCES, 4096)
    n_texts = sum(len(tokens) + 2 for tokens, _ in model.markers.tokenize([CONTEXT, OTHER]))
    assert len(starts) == -(-(n_texts + 2 * len(INSTANCES)) // 32) * 32
    assert sorted(rows) == list(range(len(INSTANCES)))
    assert (markers[places] == [0, 1]).all()
    # A marker has the position of its mention's first token, after [CLS].
    tokens, offsets = model.markers.tokenize([CONTEXT])[0]
    for row, (head, tail) in zip(rows, places, strict=True):
        instance = INSTANCES[row]
        if instance.context is CONTEXT:
            for place, mention in ((head, instance.head_mention), (tail, instance.tail_mention)):
                assert offsets[positions[0, place] - 1][0] == mention.start
                own = words[starts[place] : starts[place + 1]]
                first = tokens[positions[0, place] - 1]
                assert own[0] == first
        # It sees the text and the two markers of its pair.
        length = len(model.markers.tokenize([instance.context])[0][0]) + 2
        assert mask[head].sum() == mask[tail].sum() == length + 2
        assert mask[head, tail] and mask[tail, head]
        assert not mask[:, head].sum() - 2, "only the pair sees its markers"


def test_types_and_direction_matter(tiny_encoder: Path) -> None:
    model = make(tiny_encoder)
    text = "Ann has a sister Bo"
    pairs = [
        RelationInstance.from_offsets(text, (0, 3, "PER"), (17, 19, "PER")),
        RelationInstance.from_offsets(text, (17, 19, "PER"), (0, 3, "PER")),
        RelationInstance.from_offsets(text, (0, 3, "ship"), (17, 19, "PER")),
    ]
    scores = model.log_probs(pairs, SCHEMA)
    assert np.abs(scores[0] - scores[1]).max() > 0.01 < np.abs(scores[0] - scores[2]).max()


def test_arguments_without_tokens_and_without_types_are_marked(tiny_encoder: Path) -> None:
    model = make(tiny_encoder)
    pairs = [
        RelationInstance.from_offsets("Ann \u200b Bo", (0, 3, ""), (4, 5, "")),
        RelationInstance.from_offsets("Ann Lee", (0, 7, "PER"), (0, 3, "PER")),
    ]
    assert np.isfinite(model.log_probs(pairs, SCHEMA)).all()


def test_settings_that_do_not_fit_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not support model\.markers"):
        EncoderSettings(markers="levitated", runtime="openvino")
    with pytest.raises(ModelError, match="type_embedding is of no use"):
        EncoderSettings(markers="levitated", type_embedding=True)
    save_encoder("modernbert", tiny_encoder, tmp_path)
    with pytest.raises(ModelError, match="ModernBertModel has no embeddings of absolute positions"):
        make(tmp_path)


def test_grouped_attention_is_exact_for_packed_pairs(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tiny_encoder)
    grouped = model.log_probs(INSTANCES, SCHEMA)
    monkeypatch.setattr(
        "spacy_slmre.models.encoder.network.attention_inputs", lambda mask: {"attention_mask": mask[None, None]}
    )
    assert model.log_probs(INSTANCES, SCHEMA) == pytest.approx(grouped, rel=1e-5, abs=1e-4)


def test_only_special_tokens_are_added_to_a_context(tiny_encoder: Path) -> None:
    markers = make(tiny_encoder).markers
    assert isinstance(markers, LevitatedMarkers) and markers.max_added == 2
